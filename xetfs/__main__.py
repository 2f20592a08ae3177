"""`python -m xetfs` is the `xetfs` command."""

import sys

from xetfs.cli.main import main

sys.exit(main())
