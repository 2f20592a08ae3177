"""What the Hub knows: revisions, trees, tokens, and the bytes of files that are not in Xet."""
