"""HTTP for the rest of the house: one client, its retries, its policy of where a request may go, and foreign errors made ours."""

import sys

# httpx loads what its own command line needs, rich, click and pygments, wherever they are installed: an eighth of the time that a
# mount takes for its imports. Told that the module is not to be had, it does without.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # which makes an import fail, as documented
