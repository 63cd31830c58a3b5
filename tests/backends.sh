#!/usr/bin/env bash
# Runs the backends of examples/hooks with BINARY: Fastify and FastAPI, asked by the server and by curl.
# usage: tests/backends.sh BINARY
#
# Packages of npm go below examples/hooks/fastify, those of PyPI into a folder of their own (target/backends), all in fixed versions.
# The last line is `N passed, N failed`; the exit status is 1 if any failed.
set -u
binary=$(realpath "${1:?usage: tests/backends.sh BINARY}")
cd "$(dirname "$0")/.." || exit 2

cache=$PWD/target/backends
requirements=examples/hooks/fastapi/requirements.txt
pip() { "$cache/bin/pip" -q install --disable-pip-version-check "$@"; }
if [ ! -e "$cache/installed" ] || [ "$0" -nt "$cache/installed" ] || [ "$requirements" -nt "$cache/installed" ]; then
  python3 -m venv "$cache" && pip -r "$requirements" websockets==17.4 && touch "$cache/installed" || { echo '0 passed, 1 failed'; exit 1; }
fi
fastify=examples/hooks/fastify
[ "$fastify/node_modules/.package-lock.json" -nt "$fastify/package-lock.json" ] || (cd "$fastify" && npm ci --silent --no-audit --no-fund) ||
  { echo '0 passed, 1 failed'; exit 1; }
PYTHONPATH=clients/python/src:clients/python/tests "$cache/bin/python" tests/backends.py "$binary"
