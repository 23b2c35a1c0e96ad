#!/bin/sh
# Proves the service under a real systemd: boots a clean Debian stable in a container, follows the README's chapters
# "Installing" and "As a service" in it as written, and checks what they promise, with simulated meters and cloud.
#   sudo sh tests/systemd/run.sh
#   sudo POWERMONITOR_TEST_SUITE=bookworm sh tests/systemd/run.sh    # the stable before
# Prints one line for each check, and the sums. Exit code 1 if one failed. Where it cannot run it says why, and ends with 0.
# Installs debootstrap and systemd-container by apt-get if they are missing; all else is in folders that it removes.
# The bare Debian and its packages are kept, for a faster second run, in $POWERMONITOR_TEST_CACHE, by default
# ${XDG_CACHE_HOME:-~/.cache}/powermonitormiddleware.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd -P)
project=$(cd "$here/../.." && pwd -P)
suite=${POWERMONITOR_TEST_SUITE:-trixie}
architecture=$(dpkg --print-architecture 2>/dev/null) || architecture=unknown
cache=${POWERMONITOR_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/powermonitormiddleware}
machine=powermonitor-test-$$
keeper=''
work=''

skip() {
  echo "tests/systemd/run.sh: skipped: $*"
  exit 0
}

can_run() {
  [ "$(uname)" = Linux ] || skip "needs Linux"
  [ "$(id -u)" = 0 ] || skip "needs root, to start a container"
  unshare --mount true 2>/dev/null || skip "this environment may not make containers (no CAP_SYS_ADMIN)"
  command -v dpkg >/dev/null || skip "needs Debian's tools to make a Debian"
  if ! command -v debootstrap >/dev/null || ! command -v systemd-nspawn >/dev/null || ! command -v pgrep >/dev/null; then
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q debootstrap systemd-container procps; } \
      >/dev/null 2>&1 || skip "debootstrap, systemd-container and procps are not there and could not be installed"
  fi
}

# shellcheck disable=SC2329 # the trap calls it
clean_up() {
  status=$?
  trap - EXIT INT TERM
  if [ -n "$keeper" ] && kill -0 "$keeper" 2>/dev/null; then
    nspawn=$(pgrep -P "$keeper") || nspawn=
    leader=$(leader) || leader=
    [ -z "$leader" ] || kill -RTMIN+4 "$leader" 2>/dev/null || true # to systemd: power off
    waited=0
    while kill -0 "$keeper" 2>/dev/null && [ "$waited" -lt 50 ]; do
      waited=$((waited + 1))
      sleep 0.1
    done
    for process in $keeper $leader $nspawn; do kill -KILL "$process" 2>/dev/null || true; done
    wait "$keeper" 2>/dev/null || true
  fi
  [ -z "$work" ] || rm -rf --one-file-system "$work"
  exit "$status"
}

# The Debian package server that this machine itself uses, if it uses one; else debootstrap's own default.
mirror() {
  # shellcheck disable=SC2016 # apt-get expands it
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -E '/debian/?$' | head -n 1
}

make_base() {
  mkdir -p "$cache/archives"
  base=$cache/$suite-$architecture.tar
  if ! [ -f "$base" ] || [ -n "$(find "$base" -mtime +30)" ]; then
    echo "making a bare Debian $suite, once"
    # shellcheck disable=SC2046 # no mirror, no argument
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,ca-certificates,sudo "$suite" "$work/debian" \
      $(mirror) >"$work/debootstrap.log" 2>&1 ||
      { tail -n 3 "$work/debootstrap.log"; skip "no Debian could be made here, is there a network?"; }
    tar -C "$work/debian" -cf "$base.$$" . && mv "$base.$$" "$base"
  else
    mkdir -p "$work/debian" && tar -C "$work/debian" -xpf "$base"
  fi
  cp "$cache/archives/"*.deb "$work/debian/var/cache/apt/archives/" 2>/dev/null || true # none yet
}

# What the host needs to reach its package servers, the container needs too.
share_settings() {
  apt-config dump | grep -E '^Acquire::(http|https|ftp)::' >"$work/debian/etc/apt/apt.conf.d/90host" || true
  cat >"$work/debian/etc/apt/apt.conf.d/91test" <<'APT'
Binary::apt::APT::Keep-Downloaded-Packages "true";
APT::Get::Assume-Yes "true"; // a person says yes
APT
  rm -f "$work/debian/etc/apt/apt.conf.d/docker-clean"
  if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    cp -L /etc/ssl/certs/ca-certificates.crt "$work/debian/etc/ssl/certs/ca-certificates.crt"
  fi
  python3 "$here/pip_settings.py" >"$work/debian/etc/pip.conf"
  grep -oE '(file://)?/[^ ]+' "$work/debian/etc/pip.conf" | sed 's,^file://,,' | sort -u | while read -r path; do
    while [ "$path" != / ] && ! [ -d "$path" ]; do path=$(dirname "$path"); done
    [ "$(basename "$path")" != simple ] || path=$(dirname "$path") # an index; its files are beside it
    case $path in / | /etc/*) ;; *) echo "--bind-ro=$path" ;; esac
  done | sort -u >"$work/binds"
}

# What the operator has got by git or as an archive: what git knows here, in the home of somebody who may use sudo.
copy_project() {
  inside useradd --create-home --shell /bin/bash jane
  echo box >"$work/debian/etc/hostname"
  echo '127.0.0.1 localhost box' >"$work/debian/etc/hosts"
  inside hostname box
  echo 'jane ALL=(ALL) NOPASSWD: ALL' >"$work/debian/etc/sudoers.d/jane"
  home=$work/debian/home/jane/PowerMonitorMiddleware
  mkdir "$home"
  if git -C "$project" rev-parse 2>/dev/null; then
    (cd "$project" && git ls-files -z --cached --others --exclude-standard | tar --null -T - -c) | tar -x -C "$home"
  else
    tar -C "$project" -c --exclude=./.venv --exclude=./demo --exclude=./config.cfg --exclude='*.db*' --exclude='*.log*' . |
      tar -x -C "$home"
  fi
  inside chown -R jane: /home/jane/PowerMonitorMiddleware
}

boot() {
  # The host may not have the one tree of control groups that a systemd of today needs: then it is mounted for this alone.
  cat >"$work/boot.sh" <<'BOOT'
if ! [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  umount -R /sys/fs/cgroup
  mount -t cgroup2 none /sys/fs/cgroup
fi
mkdir -p "/sys/fs/cgroup/$MACHINE"
echo $$ >"/sys/fs/cgroup/$MACHINE/cgroup.procs"
# A reboot of the container ends systemd-nspawn with 133.
status=133
while [ $status = 133 ]; do
  status=0
  systemd-nspawn --quiet --register=no --keep-unit --boot --directory="$ROOT" --machine="$MACHINE" \
    --console=read-only --capability=all --system-call-filter="bpf @keyring" "$@" </dev/null || status=$?
done
echo $$ >/sys/fs/cgroup/cgroup.procs
find "/sys/fs/cgroup/$MACHINE" -depth -type d -exec rmdir {} +
BOOT
  # shellcheck disable=SC2046 # one word for each folder
  MACHINE=$machine ROOT=$work/debian unshare --mount sh "$work/boot.sh" $(cat "$work/binds") >"$work/boot.log" 2>&1 &
  keeper=$!
  wait_for_boot
}

# The container's first process: the child of systemd-nspawn, which is the child of the keeper.
leader() { nspawn=$(pgrep -P "$keeper") && pgrep -P "$nspawn" | head -n 1; }

wait_for_boot() {
  waited=0
  while [ "$waited" -lt 300 ]; do
    if [ -n "$(leader)" ]; then
      case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) return 0 ;; esac
    fi
    kill -0 "$keeper" 2>/dev/null || break
    waited=$((waited + 1))
    sleep 0.1
  done
  tail -n 5 "$work/boot.log"
  skip "the container does not boot here"
}

inside() { # runs a command in the container, as root
  nsenter -t "$(leader)" -m -u -i -p -n -C -r -w \
    env -i HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

can_run
work=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT TERM
make_base
share_settings
boot
inside apt-get update -qq >/dev/null 2>&1 || skip "the container reaches no package server"
copy_project
cd "$project"
code=0
python3 -B -m tests.systemd.story "$keeper" "$work/debian" || code=1
cp -n "$work/debian/var/cache/apt/archives/"*.deb "$cache/archives/" 2>/dev/null || true # for the next time
exit "$code"
