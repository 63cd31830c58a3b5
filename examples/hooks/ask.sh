#!/usr/bin/env bash
# Asks a backend as Ringcast does, with curl: to try it without a server.
# HOOK_SECRET=… ./ask.sh URL JSON
set -euo pipefail
time=$(date +%s)
signature=$(printf '%s.%s' "$time" "$2" | openssl dgst -sha256 -hmac "$HOOK_SECRET" -r | cut -d ' ' -f 1)
curl --silent --show-error --max-time 10 "$1" -H 'Content-Type: application/json' -H "Ringcast-Signature: t=$time,v1=$signature" --data-raw "$2"
echo
