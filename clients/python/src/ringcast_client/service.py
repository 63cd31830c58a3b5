"""A service: a client that answers procedures which the server asks it, on behalf of other clients."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ClosedError, ConnectionLostError, RingcastError, UnservedError
from .procedures import CallContext, Handler, log

if TYPE_CHECKING:
    from .client import Client


@dataclass(frozen=True)
class Caller:
    """Who calls. A client without a token has no claims."""

    #: The socket id of its connection.
    id: str
    user: str | int | float | None
    claims: dict[str, Any] | None


class ServiceCall(CallContext):
    """One call of another client, or a one-way event of it. `procedure` is the whole name that it has called."""

    def __init__(self, procedure: str, data: Any, caller: Caller) -> None:
        super().__init__(procedure, data)
        self.caller = caller


S = TypeVar("S", bound=Callable[[ServiceCall], Awaitable[Any]])


class _Pattern:
    """A pattern that this service registers after each connect."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.procedure: Handler | None = None
        self.receiver: Handler | None = None
        self.is_registered = False
        #: Why the server has refused it.
        self.error: Exception | None = None


class Service:
    """Registers procedures by pattern, and registers them again after each reconnect.

    The server needs a rule that allows this client the action `serve`. A pattern is the name of a procedure, or a beginning of names
    with `*` at its end. Of several patterns that cover a name, the name itself counts first, then the longest.

    A call is cancelled (`asyncio.CancelledError`) when its caller is gone, when it has timed out, and when the connection ends.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._patterns: dict[str, _Pattern] = {}
        self._changed = asyncio.Event()
        self._is_stopping = False
        client._attach(self)

    def procedure(self, pattern: str, *, weight: int | None = None, window: int | None = None) -> Callable[[S], S]:
        """Decorates the function that answers calls. What it returns is the answer; a `CallError` that it raises is one, too.

        The server has at most `window` calls open at this client, and gives it a share of the calls by its `weight`.
        """

        def register(handler: S) -> S:
            one = self._pattern(pattern)
            members = {"weight": weight, "window": window}
            one.options = {name: value for name, value in members.items() if value is not None}
            one.procedure = handler  # type: ignore[assignment]
            self._serve(pattern, one)
            return handler

        return register

    def receiver(self, pattern: str) -> Callable[[S], S]:
        """Decorates the function that gets one-way events. Its result is dropped."""

        def register(handler: S) -> S:
            one = self._pattern(pattern)
            one.receiver = handler  # type: ignore[assignment]
            if one.procedure is None:
                self._serve(pattern, one)
            return handler

        return register

    async def ready(self) -> None:
        """Waits until the server has confirmed all patterns. Raises `ServerError` if it refuses one."""
        while True:
            for one in self._patterns.values():
                if one.error is not None:
                    raise one.error
            if all(one.is_registered for one in self._patterns.values()):
                return
            if self._client._closed is not None:
                raise self._client._closed
            self._changed.clear()
            await self._changed.wait()

    async def stop(self, timeout: float = 30.0) -> None:
        """Takes no more calls, and waits until the open ones are answered. Calls that take longer than `timeout` seconds are cancelled."""
        self._is_stopping = True
        for pattern, one in self._patterns.items():
            if one.is_registered:
                try:
                    await self._client.invoke("$unserve", {"procedure": pattern})
                except RingcastError:
                    pass  # the connection has ended, and so has the registration
                one.is_registered = False
        open_calls = self._client._open_calls
        if open_calls is not None:
            try:
                async with asyncio.timeout(timeout):
                    await open_calls.finished()
            except TimeoutError:
                log.warning("%d calls were open after %.0f s, and are cancelled", len(open_calls), timeout)
                open_calls.cancel_all()

    async def run(self, signals: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT), stop_timeout: float = 30.0) -> None:
        """Serves until the process gets a signal, then stops. Raises `ClosedError` if the server sends the client away for good."""
        loop = asyncio.get_running_loop()
        signalled = asyncio.Event()
        for one in signals:
            loop.add_signal_handler(one, signalled.set)
        closed = asyncio.create_task(self._client._wait_closed())
        waits = asyncio.create_task(signalled.wait())
        try:
            await self.ready()
            await asyncio.wait([closed, waits], return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                raise closed.result()
            await self.stop(stop_timeout)
        finally:
            for task in (closed, waits):
                task.cancel()
            for one in signals:
                loop.remove_signal_handler(one)

    def _pattern(self, pattern: str) -> _Pattern:
        return self._patterns.setdefault(pattern, _Pattern())

    def _serve(self, pattern: str, one: _Pattern) -> None:
        outbox = self._client._outbox
        if outbox is None:
            return  # registered when the connection is open
        one.is_registered = False

        def answered(data: Any, error: Exception | None) -> None:
            if error is None:
                one.is_registered, one.error = True, None
            elif not isinstance(error, ConnectionLostError | ClosedError):
                # After the end of the connection it is registered with the next one.
                one.error = error
                self._client._problem(f"the procedure {pattern} is not served", error)
            self._changed.set()

        self._client._enqueue("$serve", {"procedure": pattern, **one.options}, answered)

    # ---- called by the client

    def _opened(self) -> None:
        if not self._is_stopping:
            for pattern, one in self._patterns.items():
                self._serve(pattern, one)

    def _unserved(self, pattern: Any) -> None:
        """The rules, or the claims of this client, have changed: it may not serve this any more."""
        one = self._patterns.get(pattern) if isinstance(pattern, str) else None
        if one is not None:
            one.is_registered = False
            one.error = UnservedError(f"the server does not allow this client to serve {pattern} any more")
            self._client._problem(f"the procedure {pattern} is not served any more", one.error)
            self._changed.set()

    def _lost(self) -> None:
        for one in self._patterns.values():
            one.is_registered = False
        self._changed.set()

    def _resolve(self, event: str, data: Any, is_call: bool) -> tuple[Handler, CallContext] | None:
        """The function for a call or an event, if one of the patterns covers its name."""
        one = self._patterns.get(event)
        if one is None:
            prefixes = (pattern for pattern in self._patterns if pattern.endswith("*") and event.startswith(pattern[:-1]))
            longest = max(prefixes, key=len, default=None)
            if longest is None:
                return None
            one = self._patterns[longest]
        handler = one.procedure if is_call else one.receiver
        if handler is None or not isinstance(data, dict) or not isinstance(data.get("caller"), dict):
            return None
        caller = data["caller"]
        return handler, ServiceCall(event, data.get("data"), Caller(str(caller.get("id", "")), caller.get("user"), caller.get("claims")))

