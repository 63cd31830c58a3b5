"""The backends of examples/hooks, asked by the server and by curl. usage: backends.py BINARY

The last line is `N passed, N failed`; the exit status is 1 if any failed.
"""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

import support
from ringcast_client import Client, ServerError
from support import PATIENCE, QUICKLY, REPOSITORY, take, within

support.BINARY = sys.argv[1]
EXAMPLES = REPOSITORY / "examples/hooks"
BACKENDS = {"Fastify": ["node", str(EXAMPLES / "fastify/server.mjs")], "FastAPI": [sys.executable, str(EXAMPLES / "fastapi/server.py")]}
SECRET = "a secret of thirty-two bytes, or more"
results = []


def check(name, found, expected=True):
    results.append(found == expected)
    print(f"PASS {name}" if found == expected else f"FAIL {name}\n  found    {found}\n  expected {expected}", flush=True)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def start(command, port):
    """Starts a backend, and waits until it listens."""
    process = subprocess.Popen(command, env=os.environ | {"PORT": str(port), "HOOK_SECRET": SECRET}, stdout=subprocess.DEVNULL)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process
        except OSError:
            time.sleep(0.02)
    process.kill()
    raise RuntimeError(f"{command} did not start")


def ask(words, secret=SECRET):
    return subprocess.run(["bash", "-c", words], env=os.environ | {"HOOK_SECRET": secret}, cwd=EXAMPLES, capture_output=True, text=True).stdout


async def refused(awaitable):
    try:
        await within(awaitable)
    except ServerError as error:
        return error.name, error.message
    return None


async def visit(name, url):
    """What a client sees."""
    async with Client(url, backoff=QUICKLY, call_timeout=PATIENCE) as bob:
        check(f"{name}: without a login, no room", await refused(bob.subscribe("room.1").subscribed()), ("NotInvitedError", "You are not invited to room.1"))
        wrong = await refused(bob.invoke("login", {"user": "bob", "password": "lamp"}))
        check(f"{name}: a wrong password", wrong, ("LoginError", "Wrong user or password"))
        check(f"{name}: a login", await bob.login({"user": "bob", "password": "chair"}), {"welcome": "bob"})
        check(f"{name}: gives a token", (bob.claims["sub"], bob.claims["rooms"]), ("bob", ["room.1"]))
        room = bob.subscribe("room.1")
        await within(room.subscribed())
        check(f"{name}: another room", await refused(bob.subscribe("room.2").subscribed()), ("NotInvitedError", "You are not invited to room.2"))
        check(f"{name}: a publication there", await refused(bob.publish("room.2", {"text": "hi"})), ("NotInvitedError", "You are not invited to room.2"))
        await room.publish({"from": "ann", "text": "hi"})
        check(f"{name}: a publication has its sender", (await take(aiter(room), 1))[0].data, {"from": "bob", "text": "hi"})


def run(name, command):
    port = free_port()
    backend = start(command, port)
    try:
        readme = (EXAMPLES / "README.md").read_text()
        console = re.search(r"```console\n(.*?)```", readme, re.DOTALL).group(1).replace("8001", str(port))
        asked = re.findall(r"^\$ (\./ask\.sh .*)\n(.*)\n", console, re.MULTILINE)
        check(f"{name}: the README asks", len(asked), 3)
        for words, answer in asked:
            check(f"{name}: asked by curl", ask(words), answer + "\n")
            check(f"{name}: with a wrong signature", "wrong signature" in ask(words, "another secret"))
        with tempfile.NamedTemporaryFile("w", suffix=".secret") as secret:
            secret.write(SECRET + "\n")
            secret.flush()
            config = (EXAMPLES / "ringcast.toml").read_text().replace("8001", str(port)).replace("hook.secret", secret.name)
            server = support.start(config)
            try:
                asyncio.run(visit(name, server.url))
            finally:
                server.stop()
    finally:
        backend.terminate()
        check(f"{name}: ends in order", backend.wait(PATIENCE) in (0, -15))


for name, command in BACKENDS.items():
    try:
        run(name, command)
    except Exception as error:
        check(name, repr(error), "no error")
failed = results.count(False)
print(f"{results.count(True)} passed, {failed} failed")
sys.exit(failed > 0)
