"""A local Hub, CAS and transfer host in one process, backed by a directory.

Real enough that the real clients (huggingface_hub, hf_xet) upload to it and download from it unchanged; able to be slow, to fail
and to lie on request; and accountable for every request and byte, so that tests assert counts rather than times. `xetfs hub
serve DIR` offers it to people: a hub without a network.
"""

from xetfs.testhub.faults import Fault, rate_limited
from xetfs.testhub.hub import TestHub, open_test_hub, serve_hub
from xetfs.testhub.options import HubOptions
from xetfs.testhub.records import StoredFile
from xetfs.testhub.requestlog import RequestRecord
from xetfs.testhub.shaping import Shape
from xetfs.testhub.xetstore import Run

__all__ = [
    "Fault",
    "HubOptions",
    "RequestRecord",
    "Run",
    "Shape",
    "StoredFile",
    "TestHub",
    "open_test_hub",
    "rate_limited",
    "serve_hub",
]
