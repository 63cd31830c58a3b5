#!/usr/bin/env bash
# Tests clients/python: its types, its package, and the client with BINARY and with socketcluster-server.
# usage: tests/python.sh BINARY [NAME...]    With names, only the tests whose names have one of these parts.
#
# The package, its dependency and mypy are installed from PyPI, in fixed versions, into a folder of their own (target/python). The
# last line is `N passed, N failed`; the exit status is 1 if any failed.
set -u
binary=$(realpath "${1:?usage: tests/python.sh BINARY [NAME...]}")
shift
cd "$(dirname "$0")/.." || exit 2

cache=$PWD/target/python
pip() { "$cache/bin/pip" -q install --disable-pip-version-check "$@"; }
if [ ! -e "$cache/installed" ] || [ "$0" -nt "$cache/installed" ]; then
  python3 -m venv "$cache" && pip websockets==17.4 mypy==2.4.1 hatchling==1.33.0 && touch "$cache/installed" ||
    { echo '0 passed, 1 failed'; exit 1; }
fi
# A package as a user installs it, not the sources beside the tests.
pip --force-reinstall --no-deps --no-build-isolation ./clients/python || { echo '0 passed, 1 failed'; exit 1; }
types=0
(cd clients/python && "$cache/bin/mypy" --cache-dir="$cache/mypy") || types=1
[ -e "$("$cache/bin/python" -c 'import ringcast_client; print(ringcast_client.__path__[0])')/py.typed" ] || { echo 'FAIL the package has no py.typed'; types=1; }
output=$(mktemp)
trap 'rm -f "$output"' EXIT
"$cache/bin/python" clients/python/tests --binary "$binary" --reference "$@" | tee "$output"
last=$(tail -n 1 "$output")
if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
  passed=$((BASH_REMATCH[1] + 1 - types)) failed=$((BASH_REMATCH[2] + types))
else
  passed=0 failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
