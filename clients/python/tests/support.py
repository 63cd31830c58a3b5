"""A running server, a proxy that cuts connections, and waits with a deadline."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

from ringcast_client import Backoff, Client

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
BINARY = ""
AUTH_KEY = "python-secret-python-secret-of-32"
#: The longest wait for anything, however busy the machine is. Only failing tests wait so long.
PATIENCE = 60.0
#: So that the tests do not wait between attempts.
QUICKLY = Backoff(initial=0.02, randomness=0.02, multiplier=1.2, maximum=0.2)


class Server:
    """A process that prints its port when it accepts connections."""

    def __init__(self, command, pattern, environment):
        self.folder = tempfile.TemporaryDirectory(prefix="ringcast-python-")
        self.log = pathlib.Path(self.folder.name, "log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} did not start: {self.log.read_text()}")
            time.sleep(0.02)
        self.port = int(found.group(1))
        self.url = f"ws://127.0.0.1:{self.port}/socketcluster/"

    def number(self, pattern):
        """A number in the log, such as another port."""
        return int(re.search(pattern, self.log.read_text()).group(1))

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def start(config="", cores=2, port=0, **settings):
    """Starts Ringcast. `settings` are variables without their prefix."""
    folder = tempfile.TemporaryDirectory(prefix="ringcast-python-config-")
    path = pathlib.Path(folder.name, "ringcast.toml")
    path.write_text(config)
    environment = os.environ | {
        "RINGCAST_CONFIG": str(path),
        "RINGCAST_LISTEN": f"127.0.0.1:{port}",
        "RINGCAST_ADMIN": "off",
        "RINGCAST_AUTH_KEY": AUTH_KEY,
        "RINGCAST_CORES": str(cores),
        "RINGCAST_LOG": "info",
    }
    environment |= {f"RINGCAST_{name.upper()}": str(value) for name, value in settings.items()}
    server = Server([BINARY], r"\bws://127\.0\.0\.1:(\d+)/", environment)
    server.config = folder
    return server


class Case(unittest.IsolatedAsyncioTestCase):
    """Tests against one server, which the class starts with its `CONFIG` and `SETTINGS`."""

    CONFIG = ""
    SETTINGS: dict = {}

    @classmethod
    def setUpClass(cls):
        cls.server = start(cls.CONFIG, **cls.SETTINGS)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    async def client(self, url=None, **options):
        """A client that ends with the test."""
        client = Client(url or self.server.url, **({"backoff": QUICKLY, "call_timeout": PATIENCE} | options))
        await self.enterAsyncContext(client)
        return client

    async def proxy(self, port=None):
        proxy = Proxy(port or self.server.port)
        await proxy.start()
        self.addAsyncCleanup(proxy.stop)
        return proxy

    def channel(self, kind="room"):
        """A name that no other test has."""
        return f"{kind}.{self.id().rpartition('.')[2]}"


class Proxy:
    """Passes bytes on. `cut` resets all connections, and while `is_down` no new one is passed on."""

    def __init__(self, port):
        self.upstream = port
        self.is_down = False
        self.writers = set()

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/socketcluster/"

    async def accept(self, reader, writer):
        if self.is_down:
            writer.transport.abort()
            return
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        self.writers |= {writer, upstream_writer}
        await asyncio.gather(self.pump(reader, upstream_writer), self.pump(upstream_reader, writer))

    async def pump(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.writers.discard(writer)
            writer.transport.abort()

    def cut(self):
        for writer in list(self.writers):
            writer.transport.abort()

    async def stop(self):
        self.cut()
        self.server.close()
        await eventually(lambda: not self.writers, "the connections of the proxy end")


async def eventually(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not in time: {what}")
        await asyncio.sleep(0.005)


async def within(awaitable):
    return await asyncio.wait_for(awaitable, PATIENCE)


async def stays_connected(client, seconds):
    """Whether a silent client is still connected by the same connection. If this machine stands still meanwhile, it tries again."""
    while True:
        await within(client.connected())
        connection, longest, end = client.id, 0.0, time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            await asyncio.sleep(0.05)
            longest = max(longest, time.monotonic() - now)
        if client.id == connection or longest < seconds / 4:
            return client.id == connection


async def take(reader, count):
    """The next values of an iterator."""
    return [await within(anext(reader)) for _ in range(count)]


def token(**claims):
    """A token that the servers of these tests accept."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    head = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps(claims).encode())
    return head + "." + part(hmac.new(AUTH_KEY.encode(), head.encode(), hashlib.sha256).digest())
