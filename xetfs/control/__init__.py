"""A running engine's socket, for its own user and root.

server.py      a unix socket that carries out operations
operations.py  the operations of an engine: status, metrics, prefetch, evict, verify, drain
report.py      what they answer
messages.py    requests and answers as lines of JSON (standard library only)
client.py      the side that asks (standard library only)
peer.py        who is at the other end

The socket is for its owner only: its directory and its mode say so, and both sides ask the kernel who is at the other end
(SO_PEERCRED). docs/control.md describes the protocol.
"""
