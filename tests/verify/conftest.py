from small_user import endpoint, home, run_xetfs

__all__ = ["endpoint", "home", "run_xetfs"]
