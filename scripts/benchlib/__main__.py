"""`python -m benchlib`, as scripts/bench starts it."""

import sys

from benchlib.command import main

sys.exit(main())
