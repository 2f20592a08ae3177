from new_servers import nothing_known_of_servers
from small_user import endpoint, home, run_xetfs

__all__ = ["endpoint", "home", "nothing_known_of_servers", "run_xetfs"]
