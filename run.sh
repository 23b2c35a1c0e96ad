#!/bin/sh
# Runs the daemon in an environment of its own, which it makes at the first start.
#   sh run.sh --demo     everything simulated: no meters, no account, no server
#   sh run.sh            the real thing, with config.cfg of the working directory
# All arguments go to backend_daemon.py; see sh run.sh --help.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sh "$here/venv.sh" requirements.txt
exec "$here/.venv/bin/python" "$here/backend_daemon.py" "$@"
