#!/bin/sh
# Installs what the tests need and runs all that CI runs: ruff, ruff format, mypy, pytest.
#   sh test.sh [arguments for pytest]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
sh venv.sh requirements.txt requirements-dev.txt
# shellcheck source=/dev/null
. .venv/bin/activate
set -x
ruff check .
ruff format --check .
mypy .
[ $# -gt 0 ] || sh tests/web/get_browser.sh
# More workers than cores: nearly all of their time the tests wait, for a meter or for a clock.
python -m pytest --numprocesses 5 --dist worksteal "$@"
[ $# -gt 0 ] || sh tests/systemd/run.sh
