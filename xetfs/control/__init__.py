"""What a running mount tells of itself, to its own user.

server.py  a unix socket that answers each connection with one JSON document
client.py  asks it (standard library only)
report.py  what stands in that document

Nothing is ever read from a connection, so there is nothing to inject into. The socket is for its owner only: its directory and
its mode say so, and the kernel's word on who is at the other end (SO_PEERCRED) is asked on both sides.
"""
