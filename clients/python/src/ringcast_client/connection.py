"""One connection, from its beginning to its end: handshake, pings, and packets in both directions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from .errors import ServerError
from .outbox import Outbox
from .packet import decode, encode

if TYPE_CHECKING:
    from .client import Client


@dataclass(frozen=True)
class End:
    """How a connection has ended: a close code of this protocol or of WebSocket, and why."""

    code: int
    reason: str
    error: Exception | None


class Connection:
    """A connection that belongs to a client. The client learns by `_open`, `_receive` and `_lost` what happens."""

    def __init__(self, client: Client) -> None:
        self.outbox = Outbox()
        self.websocket: ClientConnection | None = None
        #: When the server has accepted the handshake; `None` as long as it has not.
        self.opened_at: float | None = None
        self._client = client
        self._loop = asyncio.get_running_loop()
        #: Why the server has refused the handshake.
        self._refusal: Exception | None = None
        #: How long the server may be silent between pings.
        self._ping_timeout = client._connect_timeout

    async def run(self, url: str, options: dict[str, Any]) -> End:
        """Connects, and returns when the connection has ended. If the task is cancelled, the connection is closed."""
        writer: asyncio.Task[None] | None = None
        try:
            # The deadline is first that of the handshake, and then, moved by each ping, that of the next ping.
            async with asyncio.timeout(self._client._connect_timeout) as deadline:
                self.websocket = await connect(url, **options)
                writer = asyncio.create_task(self._write(self.websocket))
                self._shake_hands()
                await self._read(self.websocket, deadline)
        except TimeoutError as error:
            late = "the server did not answer in time" if self.opened_at is None else "the server's ping has not come in time"
            end = End(4007 if self.opened_at is None else 4000, late, error)
            await self._close(end.code, end.reason)
            return end
        except ServerError as error:
            code = error.details.get("statusCode")
            return End(code if isinstance(code, int) and 1000 <= code <= 4999 else 4003, error.message, error)
        except ConnectionClosed as error:
            return self._end_of_websocket(error)
        except (OSError, WebSocketException) as error:
            return End(1006, str(error), error)
        finally:
            if writer is not None:
                writer.cancel()
            await self._close(1000 if self._refusal is None else 4003)
            self._client._lost(self.outbox)
        return self._end_of_websocket(None)

    def _shake_hands(self) -> None:
        cid = self._client._call(self._answered, self.outbox)
        self.outbox.put(encode({"event": "#handshake", "data": {"authToken": self._client.token}, "cid": cid}))

    def _answered(self, data: Any, error: Exception | None) -> None:
        """The server has answered the handshake."""
        if error is not None:
            self._refusal = error
            return
        facts = data if isinstance(data, dict) else {}
        milliseconds = facts.get("pingTimeout")
        if isinstance(milliseconds, int | float) and milliseconds > 0:
            self._ping_timeout = milliseconds / 1000
        self.opened_at = self._loop.time()
        self._client._open(self, facts)

    async def _read(self, websocket: ClientConnection, deadline: asyncio.Timeout) -> None:
        async for text in websocket:
            was_open = self.opened_at is not None
            if text == "":
                self.outbox.put_first(b"")  # the pong
                if was_open:
                    deadline.reschedule(self._loop.time() + self._ping_timeout)
                continue
            for packet in decode(text) if isinstance(text, str) else ():
                self._client._receive(packet, self.outbox)
                if self._refusal is not None:
                    raise self._refusal
            if self.opened_at is not None and not was_open:
                deadline.reschedule(self._loop.time() + self._ping_timeout)

    async def _write(self, websocket: ClientConnection) -> None:
        await self.outbox.drain(lambda message: websocket.send(message, text=True), self._client._sent)

    async def _close(self, code: int, reason: str = "") -> None:
        """Closes the WebSocket, if it has not ended already."""
        if self.websocket is not None:
            await self.websocket.close(code, reason)

    def _end_of_websocket(self, error: Exception | None) -> End:
        assert self.websocket is not None
        return End(self.websocket.close_code or 1006, self.websocket.close_reason or "", error)
