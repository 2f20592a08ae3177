"""Examples have no deadline of their own: on a machine that is busy with other things it would fail at random."""

from hypothesis import settings

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
