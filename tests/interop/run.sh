#!/bin/bash
# Tests BINARY with real clients and compares it with the reference server, with 1, 2 and 8 cores; then tests logins, presence,
# compression and the page at /, with web pages in a headless Chromium.
# tests/interop/run.sh BINARY            The last line is `N passed, N failed`; the exit status is 1 if any failed.
# tests/interop/run.sh BINARY --quick    the newest client with 2 cores, and nothing else
set -u
binary=$(realpath "${1:?usage: run.sh BINARY [--quick]}")
quick=${2:-}
cd "$(dirname "$0")" || exit 2
if [ ! -d node_modules/socketcluster-server ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  npm ci --silent --no-audit --no-fund || { echo '0 passed, 1 failed'; exit 1; }
fi

passed=0 failed=0 server=
trap '[ -n "$server" ] && kill -KILL "$server" 2>/dev/null' EXIT
output=$(mktemp)

# Runs a tool, prints its failures, and adds the counts in its last line to the totals.
count() {
  local title=$1 last; shift
  echo "== $title"
  "$@" >"$output" 2>&1
  last=$(tail -n 1 "$output")
  grep -v '^PASS' "$output"
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
  else
    failed=$((failed + 1))
  fi
}

certificate=$(mktemp -d)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
  -keyout "$certificate/key.pem" -out "$certificate/certificate.pem" 2>/dev/null
key=interop-key-of-thirty-two-bytes-and-more
log=$(mktemp)
# Starts the server with so many cores, and with settings as further arguments; its port is in $port.
start() {
  local cores=$1; shift
  env RINGCAST_LISTEN=127.0.0.1:0 RINGCAST_ADMIN=off RINGCAST_AUTH_KEY=$key RINGCAST_CORES=$cores RINGCAST_PROTOCOL=auto RINGCAST_LOG=info \
    RINGCAST_LISTEN_TLS=shared RINGCAST_TLS_CERTIFICATE_FILES=$certificate/certificate.pem RINGCAST_TLS_KEY_FILES=$certificate/key.pem \
    RINGCAST_PING_INTERVAL_MS=5000 "$@" "$binary" 2>"$log" &
  server=$!
  port=
  for _ in $(seq 1200); do
    port=$(sed -nE 's|.*wss?://127\.0\.0\.1:([0-9]+)/.*|\1|p' "$log" | head -n 1)
    [ -n "$port" ] && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
  done
  [ -n "$port" ] || { echo "the server did not start:"; cat "$log"; }
}
stop() {
  kill -TERM "$server" 2>/dev/null
  for _ in $(seq 100); do kill -0 "$server" 2>/dev/null || break; sleep 0.05; done
  kill -KILL "$server" 2>/dev/null
  wait "$server" 2>/dev/null
  server=
}
for cores in $([ -n "$quick" ] && echo 2 || echo 1 2 8); do
  start "$cores"
  count "clients, $cores cores" node suite.mjs --target "ws://127.0.0.1:$port/socketcluster/" --auth-key $key ${quick:+--only 20}
  [ -z "$quick" ] && [ "$cores" = 2 ] && NODE_TLS_REJECT_UNAUTHORIZED=0 NODE_NO_WARNINGS=1 \
    count "clients under TLS, $cores cores" node suite.mjs --target "wss://127.0.0.1:$port/socketcluster/" --auth-key $key --only 20
  stop
done
if [ -z "$quick" ]; then
  start 2 RINGCAST_CODEC=min-bin
  count "clients with the codec min-bin" node suite.mjs --target "ws://127.0.0.1:$port/socketcluster/" --auth-key $key --only 15,20 --min-bin
  stop
  start 2 RINGCAST_BATCH_ON_HANDSHAKE=on
  count "batches after the handshake" node suite.mjs --target "ws://127.0.0.1:$port/socketcluster/" --auth-key $key --only 15,20
  stop
fi
rm -f "$log"
if [ -n "$quick" ]; then
  rm -rf "$output" "$certificate"
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
  exit
fi
for cores in 1 2 8; do
  count "reference side by side, $cores cores" node differential.mjs --binary "$binary" --cores "$cores"
done
count "logging in, with clients and in a browser" node login.mjs --binary "$binary"
count "presence, with clients" node presence.mjs --binary "$binary"
count "compression, with clients and in a browser" node compression.mjs --binary "$binary"
count "recovery, with clients whose connections break" node recovery.mjs --binary "$binary"
count "README, word for word" node readme.mjs --binary "$binary"
count "the programs of docs/wills.md" node wills.mjs --binary "$binary"
count "the page at / in a browser" node page.mjs --binary "$binary"
count "clients/js, with clients and in a browser" node memory.mjs --binary "$binary"
count "an application before and after it moves" node ../../examples/moving/test.mjs --binary "$binary"
count "services of clients/js, cut and killed" node services.mjs --binary "$binary"
rm -rf "$output" "$certificate"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
