#!/bin/sh
# Makes the folder .venv beside this file and installs the given requirement files into it.
#   sh venv.sh requirements.txt [requirements-dev.txt ...]
# Does nothing, and needs no network, when they are installed already. Used by run.sh and test.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"

say() { echo "$0: $*" >&2; }

python=
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null 2>&1 &&
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  say "Python 3.11 or newer is needed and was not found. On Debian or Raspberry Pi OS: sudo apt install python3 python3-venv"
  exit 1
fi

# What is installed is written down, one stamp per file: folder, Python and the file itself.
wanted() { echo "$here"; "$python" -VV; cat "$1"; }
missing=
for file; do
  stamp=.venv/installed-$file
  if ! [ -f "$stamp" ] || [ "$(cat "$stamp")" != "$(wanted "$file")" ]; then
    missing="$missing $file"
  fi
done
[ -n "$missing" ] || exit 0

say "installing$missing into .venv; this is done once and takes a minute or so"
# An environment that another Python made, or another folder, is made anew.
if ! .venv/bin/python -c "import pip, sys; sys.exit(sys.prefix != '$here/.venv')" 2>/dev/null ||
  [ "$(.venv/bin/python -VV)" != "$("$python" -VV)" ]; then
  rm -rf .venv
  if ! "$python" -m venv .venv; then
    rm -rf .venv
    say "could not make .venv. On Debian or Raspberry Pi OS: sudo apt install python3-venv"
    exit 1
  fi
  missing=$*
fi
for file in $missing; do
  if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r "$file"; then
    say "pip could not install $file. Is there a network? Run the same command again when there is."
    exit 1
  fi
  wanted "$file" >".venv/installed-$file"
done
