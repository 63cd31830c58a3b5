#!/usr/bin/env bash
# Checks that `promtool check metrics` has no complaint about the metrics of a running server. usage: promtool.sh BINARY
set -euo pipefail
binary=${1:?binary}
log=$(mktemp)
RINGCAST_LISTEN=127.0.0.1:0 RINGCAST_ADMIN=127.0.0.1:0 RINGCAST_CORES=2 "$binary" 2>"$log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -f "$log"' EXIT
admin=
for _ in $(seq 100); do
  admin=$(sed -nE 's|.*control plane on (http://[0-9.:]+)/.*|\1|p' "$log")
  [ -n "$admin" ] && break
  sleep 0.1
done
[ -n "$admin" ] || { echo "the server did not start:"; cat "$log"; echo "0 passed, 1 failed"; exit 1; }
if curl -sSf "$admin/metrics" | promtool check metrics; then
  echo "1 passed, 0 failed"
else
  echo "0 passed, 1 failed"
  exit 1
fi
