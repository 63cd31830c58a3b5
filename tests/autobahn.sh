#!/usr/bin/env bash
# Runs Autobahn's cases against ECHO, the built example of that name. Every result must be OK; NON-STRICT counts as failed.
# tests/autobahn.sh ECHO          groups 1 to 7, 9 and 10, and a sample of 12 and 13 (compression)
# tests/autobahn.sh ECHO --all    all 517, in some minutes; REPORT=DIR keeps the report
#
# kosoku, Autobahn's suite for current versions of Python, runs the cases. The script installs it from PyPI, in a fixed
# version, into a folder of its own (AUTOBAHN_CACHE, or target/autobahn). The last line is `N passed, N failed`; the exit status is 1 if
# any failed.
set -euo pipefail
echo_binary=$(realpath "${1:?usage: tests/autobahn.sh ECHO [--all]}")
choice=${2:-}
cd "$(dirname "$0")/.."

cache=${AUTOBAHN_CACHE:-target/autobahn}
if [ ! -x "$cache/bin/kosoku" ]; then
  python3 -m venv "$cache" && "$cache/bin/pip" -q install kosoku==0.1.0 || { echo '0 passed, 1 failed'; exit 1; }
fi
report=${REPORT:-$(mktemp -d)}
mkdir -p "$report"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

"$echo_binary" "127.0.0.1:$port" >/dev/null &
server=$!
trap '{ kill -KILL "$server"; wait "$server"; } 2>/dev/null || true; [ -n "${REPORT:-}" ] || rm -rf "$report"' EXIT
for _ in $(seq 200); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.05
done

# From 12 and 13: each kind of data, window and fragmentation, with the shorter messages.
cases=('1.*' '2.*' '3.*' '4.*' '5.*' '6.*' '7.*' '9.*' '10.*' 12.1.2 12.2.1 12.3.4 12.4.3 12.5.11 13.1.3 13.2.1 13.3.4 13.4.2 13.5.11 13.6.3 13.7.2)
[ "$choice" = --all ] && cases=('*')
included=()
for case in "${cases[@]}"; do included+=(-i "$case"); done
timeout 3600 "$cache/bin/kosoku" -p "$(nproc)" "${included[@]}" -o "$report" "ws://127.0.0.1:$port/" >"$report/log" 2>&1 ||
  tail -n 5 "$report/log"

python3 - "$report/index.json" <<'PYTHON'
import collections
import json
import sys

# These cases record what a server does where the RFC leaves the choice to it.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
try:
    (cases,) = json.load(open(sys.argv[1])).values()
except (OSError, ValueError) as error:
    print(f"no report: {error}\n0 passed, 1 failed")
    sys.exit(1)
groups = collections.defaultdict(lambda: [0, 0])
for name, outcome in sorted(cases.items(), key=lambda case: [int(part) for part in case[0].split(".")]):
    found = {outcome["behavior"], outcome.get("behaviorClose", "OK")}
    is_good = found <= ({"OK", "INFORMATIONAL"} if name in INFORMATIONAL else {"OK"})
    groups[name.split(".")[0]][not is_good] += 1
    if not is_good:
        print("FAIL", name, outcome["behavior"], outcome.get("behaviorClose"))
for group, (passed, failed) in groups.items():
    print(f"group {group}: {passed} passed, {failed} failed")
passed, failed = (sum(counts) for counts in zip(*groups.values()))
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
PYTHON
