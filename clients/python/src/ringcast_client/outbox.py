"""What one connection has still to send, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable


class Outbox:
    """Packets of one connection. `drain` sends them one after the other; the WebSocket's own back-pressure holds it up."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._has_changed = asyncio.Event()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: bytes) -> None:
        """Adds a packet. After the end of the connection this does nothing."""
        if not self._is_closed:
            self._messages.append(message)
            self._has_changed.set()

    def put_first(self, message: bytes) -> None:
        """Adds a message that must not wait for others: a pong."""
        if not self._is_closed:
            self._messages.appendleft(message)
            self._has_changed.set()

    def close(self) -> None:
        self._is_closed = True
        self._messages.clear()

    async def drain(self, send: Callable[[bytes], Awaitable[None]], sent: Callable[[], None]) -> None:
        """Sends messages for ever, and calls `sent` after each."""
        while True:
            while self._messages:
                await send(self._messages.popleft())
                sent()
            self._has_changed.clear()
            await self._has_changed.wait()
