#!/bin/bash
# Real clients, then the comparison with the reference server, against BINARY with 1, 2 and 8 cores; then logins and
# compression, also by pages in a headless Chromium.
# tests/interop/run.sh BINARY        The last line is `N passed, N failed`; the exit status is 1 if any failed.
set -u
binary=$(realpath "${1:?usage: run.sh BINARY}")
cd "$(dirname "$0")" || exit 2
if [ ! -d node_modules/socketcluster-server ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  npm ci --silent --no-audit --no-fund || { echo '0 passed, 1 failed'; exit 1; }
fi

passed=0 failed=0 server=
trap '[ -n "$server" ] && kill -KILL "$server" 2>/dev/null' EXIT
output=$(mktemp)

# Runs a tool, shows what failed, adds up its last line.
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
for cores in 1 2 8; do
  port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
  RINGCAST_LISTEN=127.0.0.1:$port RINGCAST_ADMIN=off RINGCAST_AUTH_KEY=interop-key-of-thirty-two-bytes-and-more RINGCAST_CORES=$cores RINGCAST_PROTOCOL=auto RINGCAST_LOG=warn \
    RINGCAST_LISTEN_TLS=shared RINGCAST_TLS_CERTIFICATE_FILES=$certificate/certificate.pem RINGCAST_TLS_KEY_FILES=$certificate/key.pem \
    RINGCAST_PING_INTERVAL_MS=5000 "$binary" &
  server=$!
  for _ in $(seq 200); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
  done
  count "clients, $cores cores" node suite.mjs --target "ws://127.0.0.1:$port/socketcluster/" --auth-key interop-key-of-thirty-two-bytes-and-more
  [ "$cores" = 2 ] && NODE_TLS_REJECT_UNAUTHORIZED=0 NODE_NO_WARNINGS=1 \
    count "clients under TLS, $cores cores" node suite.mjs --target "wss://127.0.0.1:$port/socketcluster/" --auth-key interop-key-of-thirty-two-bytes-and-more --only 20
  kill -TERM "$server" 2>/dev/null
  for _ in $(seq 100); do kill -0 "$server" 2>/dev/null || break; sleep 0.05; done
  kill -KILL "$server" 2>/dev/null
  wait "$server" 2>/dev/null
  server=
done
for cores in 1 2 8; do
  count "reference side by side, $cores cores" node differential.mjs --binary "$binary" --cores "$cores"
done
count "logging in, with clients and in a browser" node login.mjs --binary "$binary"
count "compression, with clients and in a browser" node compression.mjs --binary "$binary"
rm -rf "$output" "$certificate"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
