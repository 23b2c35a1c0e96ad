#!/bin/sh
# Takes PowerMonitorMiddleware off this computer again.
#   sudo sh systemd/uninstall.sh [--instance NAME] [--purge]
# --instance  only the service powermonitormiddleware@NAME; the program goes with the last service
# --purge     the configuration, the database and the log too. What has not been delivered is lost then.
set -eu
program=/opt/PowerMonitorMiddleware
units=/etc/systemd/system
name=powermonitormiddleware
instance='' purge=''

say() { echo "uninstall.sh: $*"; }
usage() {
  echo "usage: sudo sh systemd/uninstall.sh [--instance NAME] [--purge]" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --instance)
      case ${2-} in '' | -* | *[!A-Za-z0-9_-]*) usage ;; esac
      instance=$2
      shift
      ;;
    --purge) purge=yes ;;
    *) usage ;;
  esac
  shift
done
if [ "$(id -u)" != 0 ]; then
  say "this must be done by root. Nothing was changed. Type:  sudo sh systemd/uninstall.sh" >&2
  exit 1
fi

service=$name${instance:+@$instance}.service
data=/var/lib/powermonitor${instance:+-$instance}

if systemctl cat "$service" >/dev/null 2>&1; then
  systemctl disable --quiet --now "$service" || say "$service could not be stopped, see above; going on" >&2
  say "$service is stopped and will not be started again"
else
  say "$service is not installed"
fi
[ -n "$instance" ] || rm -f "$units/$service" "$units/$service.before"
[ -z "$purge" ] || rm -rf "$units/$service.d"

left=$(find "$units" -name "$name.service" -o -path "*.wants/$name@*.service")
if [ -z "$left" ]; then
  rm -f "$units/$name@.service" "$units/$name@.service.before"
  if [ -e "$program/config.cfg" ] || [ -e "$program/power_monitor.db" ] || [ -e "$program/.git" ]; then
    say "the program in $program is kept: there is something of yours in that folder"
  else
    rm -rf "$program"
    say "the program is removed"
  fi
fi
systemctl daemon-reload
systemctl reset-failed "$service" 2>/dev/null || true

if [ -n "$purge" ]; then
  rm -rf "$data"
  say "configuration, database and log in $data are removed"
  if [ -z "$left" ] && getent passwd powermonitor >/dev/null &&
    ! ls -d /var/lib/powermonitor* >/dev/null 2>&1; then
    userdel powermonitor
    say "the user powermonitor is removed"
  fi
elif [ -d "$data" ]; then
  say "configuration, database and log are kept in $data; to remove them too:  sudo sh systemd/uninstall.sh ${instance:+--instance $instance }--purge"
fi
