"""A queue with any number of readers, each of which is an async iterator with a bounded buffer."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from .errors import SlowReaderError

T = TypeVar("T")


class Reader(AsyncIterator[T], Generic[T]):
    """What one reader has still to read. One task at a time may wait for the next value."""

    def __init__(self, buffer_max: int, accepts: Callable[[Any], bool] | None = None) -> None:
        self._values: deque[T] = deque()
        self._buffer_max = buffer_max
        self._accepts = accepts
        self._waiter: asyncio.Future[None] | None = None
        self._has_ended = False
        self._error: Exception | None = None

    def _push(self, value: T) -> None:
        if self._has_ended or (self._accepts is not None and not self._accepts(value)):
            return
        if len(self._values) >= self._buffer_max:
            self._end(SlowReaderError(f"the reader has left {self._buffer_max} values unread"))
            return
        self._values.append(value)
        self._wake()

    def _end(self, error: Exception | None) -> None:
        if not self._has_ended:
            self._has_ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _narrowed(self, accepts: Callable[[Any], bool]) -> None:
        """From now on the reader accepts only these values, also of those that have come."""
        self._accepts = accepts
        self._values = deque(value for value in self._values if accepts(value))

    def __aiter__(self) -> Reader[T]:
        return self

    async def __anext__(self) -> T:
        while not self._values:
            if self._has_ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("another task waits for the next value already")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._values.popleft()


class Stream(Generic[T]):
    """Values that are pushed now and read later. Each reader gets all values that are pushed after it began.

    The stream knows its readers weakly: a reader that nobody holds any more, after a `break` for example, takes no memory.
    """

    def __init__(self, buffer_max: int) -> None:
        self._buffer_max = buffer_max
        self._readers: weakref.WeakSet[Reader[T]] = weakref.WeakSet()
        self._has_ended = False
        self._error: Exception | None = None

    def push(self, value: T) -> None:
        for reader in list(self._readers):
            reader._push(value)

    def end(self, error: Exception | None = None) -> None:
        """Ends all readers once they have read what was pushed; with an error, if there is one."""
        if self._has_ended:
            return
        self._has_ended, self._error = True, error
        for reader in list(self._readers):
            reader._end(error)

    def read(self, accepts: Callable[[Any], bool] | None = None) -> Reader[T]:
        """A new reader, of all values or of those that `accepts` returns true for."""
        reader: Reader[T] = Reader(self._buffer_max, accepts)
        if self._has_ended:
            reader._end(self._error)
        else:
            self._readers.add(reader)
        return reader

    def __aiter__(self) -> Reader[T]:
        return self.read()
