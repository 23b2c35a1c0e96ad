#!/bin/sh
# Installs PowerMonitorMiddleware as a service, or brings an installed one up to date.
#   sudo sh systemd/install.sh [--user NAME] [--instance NAME] [--dry-run]
# --user      who runs it; made if there is no such user. Default: powermonitor
# --instance  one of several pairs of meters on this computer: service powermonitormiddleware@NAME
# --dry-run   only shows what would be done
# Typed again it upgrades: config.cfg, database and log are kept, and what was running is restarted.
set -eu
umask 022
program=/opt/PowerMonitorMiddleware
units=/etc/systemd/system
source=$(cd "$(dirname "$0")/.." && pwd -P)
user='' instance='' dry=''

say() { echo "install.sh: $*"; }
fail() {
  echo "install.sh: $1" >&2
  shift
  for line; do echo "  $line" >&2; done
  exit 1
}
usage() {
  echo "usage: sudo sh systemd/install.sh [--user NAME] [--instance NAME] [--dry-run]" >&2
  exit 2
}
do_it() { # runs a command, or shows it
  if [ -n "$dry" ]; then echo "would do: $*"; else "$@"; fi
}

while [ $# -gt 0 ]; do
  case $1 in
    --user | --instance)
      # No name that is no name of a folder, a user and a service alike.
      case ${2-} in '' | -* | *[!A-Za-z0-9_-]*) usage ;; esac
      if [ "$1" = --user ]; then user=$2; else instance=$2; fi
      shift
      ;;
    --dry-run) dry=yes ;;
    *) usage ;;
  esac
  shift
done

name=powermonitormiddleware
file=$name.service
service=$file
data=/var/lib/powermonitor
if [ -n "$instance" ]; then
  file=$name@.service
  service=$name@$instance.service
  data=/var/lib/powermonitor-$instance
fi

check_computer() {
  [ -d /run/systemd/system ] || fail "this computer is not run by systemd." \
    "Nothing was changed. Use 'sh run.sh', and have whatever starts programs here start it."
  [ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "this must be done by root." \
    "Nothing was changed. Type:  sudo sh systemd/install.sh"
  [ "$source" != "$program" ] || fail "$source is where the program is installed to, not where it comes from." \
    "Nothing was changed. Unpack or clone it into another folder, your home for example, and start it there."
  for kept in config.cfg power_monitor.db .git; do # all of the folder is replaced
    [ ! -e "$program/$kept" ] || fail "$program was not made by this installer: there is a $kept in it, which would be lost." \
      "Nothing was changed. Move the folder into your home first, and start the installer there."
  done
  [ "$user" != root ] || fail "the service does not need to be root, and must not be." "Nothing was changed. Leave --user out."
}

shown() { systemctl show --property="$2" --value "$1" 2>/dev/null || true; } # a setting of an installed service

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null
}

install_packages() {
  ! python3 -c 'import ensurepip, venv' 2>/dev/null || return 0
  if ! command -v apt-get >/dev/null; then
    say "Python's venv was not found, and there is no apt-get to install it; going on"
    return 0
  fi
  say "installing packages: python3 python3-venv"
  [ -z "$dry" ] || return 0
  apt_install 2>/dev/null || { apt-get update -qq && apt_install; } ||
    fail "apt-get could not install python3 and python3-venv, see above." \
      "The program was not changed; a service that runs goes on." "Is there a network? Type the same command again when there is."
}

install_program() {
  say "the program goes to $program"
  if [ -n "$dry" ]; then
    echo "would do: copy the program from $source to $program, and install its packages there"
    return 0
  fi
  install -d -m 755 "${program%/*}"
  new=$(mktemp -d "$program.new.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  chmod 755 "$new"
  (cd "$source" && tar -c --mode=u=rwX,go=rX --exclude=__pycache__ ./*.py ./*.sh ./*.txt config.cfg.example \
    aretas_api simulator systemd web xdm1041) | tar -x --no-same-owner -C "$new"
  [ -f "$new/backend_daemon.py" ] || fail "the program could not be copied to $new, see above." \
    "Nothing was changed; a service that runs goes on." "Is the disk full? Look with:  df -h /opt"
  if [ -x "$program/.venv/bin/python" ]; then # first all that the new one needs: without it, the old one stays
    "$program/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -r "$new/requirements.txt" ||
      fail "the packages that the new version needs could not be installed, see above." \
        "The installed version was not changed; if it runs, it goes on." \
        "Is there a network? Type the same command again when there is."
    mv "$program/.venv" "$new/.venv"
  fi
  rm -rf "$program"
  mv "$new" "$program"
  sh "$program/venv.sh" requirements.txt || fail "the packages that the program needs could not be installed, see above." \
    "The service was not started." "Is there a network? Type the same command again when there is."
}

make_user() {
  if ! getent passwd "$user" >/dev/null; then
    say "a new user, who can do nothing but this: $user"
    do_it useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "$user"
  fi
  do_it usermod -aG dialout "$user" # the group that may use serial ports
}

make_data() {
  say "configuration, database and log are in $data"
  if [ -d "$data" ] && [ "$(stat -c %U "$data")" != "$user" ]; then
    do_it chown -R "$user:" "$data"
  fi
  group=$(id -gn "$user" 2>/dev/null) || group=$user
  do_it install -d -o "$user" -g "$group" -m 750 "$data"
  if [ -e "$data/config.cfg" ]; then
    do_it chmod 600 "$data/config.cfg"
    return 0
  fi
  config=config.cfg.example
  if [ -z "$instance" ] && [ -f "$source/config.cfg" ]; then config=config.cfg; fi
  say "$data/config.cfg is made from $source/$config"
  do_it install -o "$user" -g "$group" -m 600 "$source/$config" "$data/config.cfg"
}

install_units() {
  for unit in $name.service $name@.service; do
    if [ -f "$units/$unit" ] && ! cmp -s "$source/systemd/$unit" "$units/$unit"; then
      say "$units/$unit is replaced; what it was is kept as $unit.before. (Changes of yours belong into 'systemctl edit'.)"
      do_it cp "$units/$unit" "$units/$unit.before"
    fi
    if [ "$unit" = "$file" ] || [ -f "$units/$unit" ]; then
      do_it install -m 644 "$source/systemd/$unit" "$units/$unit"
    fi
  done
  if [ "$user" != powermonitor ] && [ "$(shown "$service" User)" != "$user" ]; then
    do_it install -d -m 755 "$units/$service.d"
    if [ -n "$dry" ]; then
      echo "would do: write User=$user into $units/$service.d/user.conf"
    else
      printf '# Made by install.sh --user\n[Service]\nUser=%s\n' "$user" >"$units/$service.d/user.conf"
    fi
  fi
  do_it systemctl daemon-reload
  do_it systemctl enable --quiet "$service"
}

running() { systemctl list-units --plain --no-legend --state=active,activating,reloading "$name*.service" | cut -d ' ' -f 1; }

check_config() { # $1: the service
  folder=$(shown "$1" WorkingDirectory)
  # Where passwords come to the service from elsewhere, the file alone is not all of the configuration.
  ! systemctl cat "$1" | grep -qE '^(Load|Set|Import)Credential|^Environment' || return 0
  who=$(shown "$1" User)
  setpriv --reuid="$who" --regid="$(id -gn "$who")" --init-groups \
    "$program/.venv/bin/python" "$program/backend_daemon.py" --config "$folder/config.cfg" --check-config
}

restart() { # $1: the service
  if ! check_config "$1"; then
    echo
    say "$1 was not started: its config.cfg must be filled in first, see above. If it was running, it goes on."
    say "Then type these two:"
    echo "  sudo nano $folder/config.cfg"
    echo "  sudo systemctl restart $1"
    return 0
  fi
  say "$1 is started. To see how it is:  systemctl status $1"
  systemctl restart "$1" || fail "$1 did not start." \
    "No readings are being taken. What has been measured before is kept." "What it says:  sudo journalctl -u $1 -n 20"
}

check_computer
[ -n "$user" ] || user=$(shown "$service" User)
[ -n "$user" ] || user=powermonitor
first=yes
! systemctl is-enabled --quiet "$service" 2>/dev/null || first=
ran=$(running)
install_packages
install_program
make_user
make_data
install_units
if [ -n "$dry" ]; then
  echo "would do: systemctl restart ${ran:-$service}, if the configuration is good"
  exit 0
fi
for one in $ran; do restart "$one"; done
case " $(echo "$ran" | tr '\n' ' ') " in
  *" $service "*) ;;
  *)
    if [ -n "$first" ]; then
      restart "$service"
    else
      say "$service was not running and is not started. To start it:  sudo systemctl start $service"
    fi
    ;;
esac
say "done"
