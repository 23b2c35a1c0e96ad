"""The exit codes of the program. Codes 1, 2 and 78 tell the service manager not to start it again."""

EXIT_CLEAN = 0
EXIT_CHECK_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERNAL = 70
EXIT_CONFIGURATION = 78
