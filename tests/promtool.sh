#!/usr/bin/env bash
# promtool of Prometheus checks the metrics of a running server, the alert rules of tuning/alerts.yml with their tests, and
# the queries of the dashboard tuning/grafana.json. usage: promtool.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?binary}
log=$(mktemp)
queries=$(mktemp --suffix .json)
RINGCAST_LISTEN=127.0.0.1:0 RINGCAST_ADMIN=127.0.0.1:0 RINGCAST_CORES=2 "$binary" 2>"$log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -f "$log" "$queries"' EXIT
passed=0 failed=0
check() {
  local name=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $name"; fi
}
metrics() {
  local admin=
  for _ in $(seq 100); do
    admin=$(sed -nE 's|.*control plane on (http://[0-9.:]+)/.*|\1|p' "$log")
    [ -n "$admin" ] && break
    sleep 0.1
  done
  [ -n "$admin" ] || { echo "the server did not start:"; cat "$log"; return 1; }
  curl -sSf "$admin/metrics" | promtool check metrics
}
# promtool reads queries only as rules: so each query of the dashboard becomes one.
dashboard() {
  python3 - "$queries" <<'PYTHON' && promtool check rules "$queries"
import json, sys
dashboard = json.load(open("tuning/grafana.json"))
queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
assert len(queries) > 20, "the panels have few queries"
variables = {"$__rate_interval": "5m", "$job": "ringcast", "$instance": ".*"}
rules = []
for number, query in enumerate(queries):
    for variable, value in variables.items():
        query = query.replace(variable, value)
    assert "$" not in query, f"an unknown variable: {query}"
    rules.append({"record": f"query:{number}", "expr": query})
json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, open(sys.argv[1], "w"))
PYTHON
}
check 'the metrics of a running server' metrics
check 'the alert rules' promtool check rules tuning/alerts.yml
check 'the tests of the alert rules' promtool test rules tuning/alerts.test.yml
check 'the queries of the dashboard' dashboard
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
