"""The web server, at the level of its sockets and of the process."""
