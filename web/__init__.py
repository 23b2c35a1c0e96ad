"""The page, its API, and the metrics for Prometheus: a small web server inside the daemon, read-only.

Imported only when ``[WEB] enable_web`` is set. ``facts.py`` is all that it knows of the daemon, ``history.py`` all that
it knows of the database.
"""
