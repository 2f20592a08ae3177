"""What the CAS knows: reconstructions, range proofs, and where the bytes of xorbs lie."""
