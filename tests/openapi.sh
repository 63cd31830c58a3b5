#!/usr/bin/env bash
# Checks openapi.json and the answers of a running server with programs of others: the document with openapi-spec-validator,
# each answer with jsonschema. usage: openapi.sh BINARY
#
# Both are installed from PyPI, in fixed versions, into a folder of their own (target/openapi). The last line is
# `N passed, N failed`; the exit status is 1 if any failed.
set -euo pipefail
binary=$(realpath "${1:?usage: tests/openapi.sh BINARY}")
cd "$(dirname "$0")/.."

cache=target/openapi
if [ ! -e "$cache/installed" ]; then
  python3 -m venv "$cache" && "$cache/bin/pip" -q install jsonschema==4.26.0 openapi-spec-validator==0.8.5 &&
    touch "$cache/installed" || { echo '0 passed, 1 failed'; exit 1; }
fi
folder=$(mktemp -d)
"$binary" api-key all --actions '*' --channels '**' --rate 0 >"$folder/new"
{
  printf '[[channels]]\nnames = ["shop.**"]\nhistory_entries = 10\npresence = true\n\n'
  tail -n +3 "$folder/new"
} >"$folder/ringcast.toml"
RINGCAST_LISTEN=127.0.0.1:0 RINGCAST_ADMIN=127.0.0.1:0 RINGCAST_CORES=2 RINGCAST_API_BODY_BYTES_MAX=4096 \
  "$binary" --config "$folder/ringcast.toml" 2>"$folder/log" &
server=$!
trap '{ kill "$server"; wait "$server"; } 2>/dev/null || true; rm -rf "$folder"' EXIT
admin=
for _ in $(seq 100); do
  admin=$(sed -nE 's|.*control plane on (http://[0-9.:]+)/.*|\1|p' "$folder/log")
  [ -n "$admin" ] && break
  sleep 0.1
done
[ -n "$admin" ] || { echo "the server did not start:"; cat "$folder/log"; echo "0 passed, 1 failed"; exit 1; }
KEY=$(head -n 1 "$folder/new") "$cache/bin/python" - "$admin" <<'PYTHON'
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

import jsonschema
import openapi_spec_validator

ADMIN, KEY = sys.argv[1], os.environ["KEY"]
results = []


def check(name, problem):
    results.append(problem is None)
    if problem is not None:
        print(f"FAILED {name}: {problem}")


def ask(method, path, body=None, headers=None, key=KEY):
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(ADMIN + path, data=data, method=method)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    if data is not None:
        request.add_header("Content-Type", "application/json")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as answer:
        return answer.code, json.load(answer)


_, document = ask("GET", "/api/v1/openapi.json")
try:
    openapi_spec_validator.validate(document)
    check("the document", None)
except Exception as error:
    check("the document", error)


def problem_of(value, schema):
    # References lead into the document.
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))


def resolved(part):
    for name in part.get("$ref", "#").removeprefix("#").split("/")[1:]:
        part = (document if name == "components" else part)[name]
    return part


def check_answer(name, operation, wanted, status, answer):
    if status != wanted:
        return check(name, f"status {status}, not {wanted}: {answer}")
    response = operation["responses"].get(str(status))
    if response is None:
        return check(name, f"the document has no status {status}")
    check(name, problem_of(answer, resolved(response)["content"]["application/json"]["schema"]))


for path, operations in document["paths"].items():
    for method, operation in operations.items():
        name, method = f"{method} {path}", method.upper()
        parameters = [resolved(one) for one in operation.get("parameters", [])]
        query = {one["name"]: one["example"] for one in parameters if one["in"] == "query" and one["required"]}
        full = path + ("?" + urllib.parse.urlencode(query, doseq=True) if query else "")
        body = None
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            body = content["example"]
            check(f"{name}: the example of its body", problem_of(body, content["schema"]))
        for status, response in operation["responses"].items():
            content = resolved(response)["content"]["application/json"]
            if "example" in content:
                check(f"{name}: the example of {status}", problem_of(content["example"], content["schema"]))
        check_answer(f"{name}: 200", operation, 200, *ask(method, full, body))
        if path.endswith("openapi.json"):
            continue
        check_answer(f"{name}: without a key", operation, 401, *ask(method, full, body, key=None))
        check_answer(f"{name}: a foreign page", operation, 403, *ask(method, full, body, {"Origin": "http://evil.example"}))
        if body is None:
            check_answer(f"{name}: an unknown parameter", operation, 400, *ask(method, path + "?unknown=1"))
        else:
            check_answer(f"{name}: an empty object", operation, 400, *ask(method, full, {}))
            check_answer(f"{name}: a large body", operation, 413, *ask(method, full, b" " * 4097))
            check_answer(f"{name}: text", operation, 415, *ask(method, full, body, {"Content-Type": "text/plain"}))
            repeated = {"Idempotency-Key": name.replace(" ", "-")}
            check_answer(f"{name}: once", operation, 200, *ask(method, full, body, repeated))
            check_answer(f"{name}: twice", operation, 200, *ask(method, full, body, repeated))
            other = json.dumps(body).encode() + b" "
            check_answer(f"{name}: another", operation, 422, *ask(method, full, other, repeated))

failed = results.count(False)
print(f"{results.count(True)} passed, {failed} failed")
sys.exit(failed > 0)
PYTHON
