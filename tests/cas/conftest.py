from new_servers import nothing_known_of_servers

__all__ = ["nothing_known_of_servers"]
