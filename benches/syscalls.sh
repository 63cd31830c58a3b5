#!/usr/bin/env bash
# How many system calls does a message cost? Runs the binary with one core under strace (Debian: strace) and prints the
# calls per message by name, for 100 clients with one ping in flight each and for a publisher with 1,000 subscribers and
# one or eight publications in flight. The figures are the same on any machine, except that with slower clients fewer
# messages share one wait.
# benches/syscalls.sh [path of the ringcast binary]
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-target/release/ringcast}
port=${PORT:-18473}
scratch=$(mktemp -d)

[ -x "$binary" ] || cargo build --locked --release
load=$(cargo bench --locked --bench ping_pong --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"name":"ping_pong".*"executable":"\([^"]*\)".*/\1/p')

RINGCAST_CORES=1 RINGCAST_ADMIN=off RINGCAST_LOG=warn RINGCAST_LISTEN=127.0.0.1:$port "$binary" &
server=$!
trap 'kill $server; rm -r "$scratch"' EXIT
until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.1; done

# measure WHAT CLIENTS IN_FLIGHT ROUNDS: attaches strace after the clients have connected, detaches it after their last answer.
measure() {
  coproc clients { "$load" drive "127.0.0.1:$port" "$@"; }
  local client=$clients_PID
  read -r _ <&"${clients[0]}"
  strace -c -f -p $server -o "$scratch/calls" 2>"$scratch/strace" &
  local tracer=$!
  until grep -q attached "$scratch/strace"; do sleep 0.1; done
  echo >&"${clients[1]}"
  read -r messages <&"${clients[0]}"
  kill -INT $tracer
  wait $tracer || true
  wait "$client"
  echo "$1, $2 clients, $3 in flight: calls per message, of $messages messages"
  awk -v messages="$messages" '
    $4 ~ /^[0-9]+$/ && $NF != "total" { printf "  %-14s %.3f\n", $NF, $4 / messages; all += $4 }
    END { printf "  %-14s %.3f\n", "all", all / messages }' "$scratch/calls"
}

measure ping 100 1 200
measure fan-out 1000 1 20
measure fan-out 1000 8 5
