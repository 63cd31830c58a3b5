#!/usr/bin/env bash
# Ringcast beside its peers, with one command: installs the peers, builds the release server, drives all of them in turn
# and leaves table.md, comparison.json, report.html and its plots in target/peers/out (target/peers/out-mqtt). Prints the
# table as the README has it. Takes under ten minutes on two CPUs; `--quick`, with Ringcast and the echo alone, seconds.
# `--mqtt` compares MQTT brokers. Further options go to the comparison: `cargo bench --bench load -- compare --help`.
# benches/peers/run.sh [--mqtt] [--quick] [OPTION...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
out=target/peers/out
command="benches/peers/run.sh${*:+ $*}"
mqtt=
if [ "${1:-}" = --mqtt ]; then
  mqtt=--mqtt
  out=target/peers/out-mqtt
  shift
fi
mkdir -p "$out"

case " $* " in
  *" --quick "*) "$here/install.sh" $mqtt --limit-only ;;
  *)
    "$here/install.sh" $mqtt
    command -v strace >/dev/null && set -- --system-calls "$@"
    ;;
esac

# The tests only want to see that it runs, with what they have built already.
profile=${BENCH_PROFILE:-bench}
cargo bench --locked --profile "$profile" --bench load --no-run
status=0
cargo bench --locked --quiet --profile "$profile" --bench load -- compare $mqtt --command "$command" \
  --json "$out/comparison.json" --markdown "$out/table.md" --html "$out/report.html" --svg "$out" "$@" || status=$?
if [ -s "$out/comparison.json" ]; then
  echo "left in $out: $(cd "$out" && ls | tr '\n' ' ')" >&2
fi
exit $status
