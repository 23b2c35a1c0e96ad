#!/bin/sh
# Makes the folder .venv beside this file and installs the given requirement files into it.
#   sh venv.sh requirements.txt [requirements-dev.txt ...]
# Does nothing, and needs no network, when they are installed already. Used by run.sh and test.sh.
# The environment stays with the Python that made it for as long as that one works. To choose another: PYTHON=python3.13
set -eu
umask 022 # whoever installs it, the user that runs the daemon must be able to read it
here=$(cd "$(dirname "$0")" && pwd -P)
cd "$here"

say() { echo "$0: $*" >&2; }
version_of() { "$1" -c 'import sys; print("Python %d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
is_usable() { grep -qF "$here/.venv" .venv/bin/activate && .venv/bin/python -c 'import pip'; } 2>/dev/null

python=
version=
for candidate in ${PYTHON:-.venv/bin/python} python3 python3.13 python3.12 python3.11; do
  if version=$(version_of "$candidate"); then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  say "Python 3.11 or newer is needed and was not found. On Debian or Raspberry Pi OS: sudo apt install python3 python3-venv"
  exit 1
fi

# What is installed is written down, one stamp per file: folder, Python and the file itself.
wanted() { echo "$here"; echo "$version"; cat "$1"; }
missing=
for file; do
  stamp=.venv/installed-$file
  if ! [ -f "$stamp" ] || [ "$(cat "$stamp")" != "$(wanted "$file")" ]; then
    missing="$missing $file"
  fi
done
[ -n "$missing" ] || exit 0

if ! [ -w . ] || { [ -e .venv ] && ! [ -w .venv ]; }; then
  owner=$(stat -c %U . 2>/dev/null) || owner="another user"
  say "${missing# } must be installed into $here/.venv, but $(id -un) may not write there: the folder belongs to $owner."
  say "Either have $owner install it:  sudo -u $owner sh $here/venv.sh$missing"
  say "or use a copy of the program in a folder of your own."
  exit 1
fi

# An environment that does not work any more is made anew: its Python is gone, or it was made in another folder.
python=$("$python" -c 'import sys; print(sys._base_executable)') # not the one in the folder that may be removed
if ! [ -e .venv ]; then
  say "installing$missing into .venv; this is done once and takes a minute or so"
elif is_usable && [ "$(version_of .venv/bin/python)" = "$version" ]; then
  say "installing$missing into .venv"
else
  say "the folder .venv was made by another Python, or in another folder: it is made anew with $version. Restart what runs in it"
  rm -rf .venv
fi
if ! [ -e .venv ]; then
  if ! "$python" -m venv .venv; then
    rm -rf .venv
    say "could not make .venv, see above. If it speaks of ensurepip, on Debian or Raspberry Pi OS: sudo apt install python3-venv"
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
