#!/usr/bin/env bash
# Installs the servers that Ringcast is compared with into a folder (target/peers): npm's packages as package-lock.json
# pins them, and the bare echo, compiled with cc. Does nothing where they are installed already.
# benches/peers/install.sh [--echo-only] [FOLDER]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
echo_only=
if [ "${1:-}" = --echo-only ]; then
  echo_only=1
  shift
fi
folder=${1:-$here/../../target/peers}
mkdir -p "$folder"

if [ ! "$folder/echo" -nt "$here/echo.c" ]; then
  command -v cc >/dev/null || { echo "a C compiler is needed (Debian: gcc libc6-dev)" >&2; exit 1; }
  cc -O2 -Wall -Wextra -D_GNU_SOURCE -o "$folder/echo" "$here/echo.c"
fi
[ -n "$echo_only" ] && exit

command -v npm >/dev/null || { echo "Node.js 20 or newer with npm is needed" >&2; exit 1; }
cp "$here"/*.js "$here/.npmrc" "$folder"
if ! cmp -s "$here/package-lock.json" "$folder/package-lock.json" || [ ! -e "$folder/installed" ]; then
  rm -f "$folder/installed"
  cp "$here/package.json" "$here/package-lock.json" "$folder"
  (cd "$folder" && npm ci --silent --no-audit --no-fund)
  touch "$folder/installed"
fi
