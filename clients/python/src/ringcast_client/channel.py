"""A subscription: an async iterable of publications that goes on after a reconnect, and recovers what was missed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .errors import RingcastError
from .packet import Position
from .stream import Reader, Stream

if TYPE_CHECKING:
    from .client import Client
    from .outbox import Outbox


@dataclass(frozen=True)
class Publication:
    """One publication. `position` is `None` if the policy of the channel has no positions."""

    channel: str
    data: Any
    position: Position | None
    #: Whether it was published before this subscription went live.
    replayed: bool


@dataclass(frozen=True)
class Recovery:
    """The server's answer to a subscribe to a channel with a history."""

    #: Whether all that was missed follows; `None` if nothing was asked for.
    recovered: bool | None
    #: Why not.
    reason: str | None
    #: From here on the channel is live.
    position: Position
    #: How many past publications follow at most: the application may withhold some.
    publications: int


#: Called when something was missed that the server can no longer give: fetch the state anew.
Gap = Callable[[Recovery], Awaitable[None] | None]

State = Literal["pending", "subscribed", "unsubscribed"]


class Channel:
    """A subscription, made by `Client.subscribe`. Iterating it gives a `Publication` for each.

    The first iteration begins with the subscription, however late it starts; each further one begins when it starts.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        ask: dict[str, Any] | None,
        position: Position | None,
        data: Any,
        on_gap: Gap | None,
        priority: int,
        wait_for_auth: bool,
        buffer_max: int,
    ) -> None:
        self.name = name
        self.state: State = "pending"
        #: Up to there this client has all that it is to have; `None` if that is not known.
        self.position = position
        self.priority = priority
        self.wait_for_auth = wait_for_auth
        self._client = client
        #: What the first subscribe asks for; `None` if this subscription does not recover.
        self._ask = ask
        self._data = data
        self._on_gap = on_gap
        self._has_begun = False
        #: The connection that carries the last `#subscribe`.
        self._asked: Outbox | None = None
        #: Whether the server has answered with a position, so that the channel has a history.
        self._has_history = False
        self._stream: Stream[Publication | Recovery] = Stream(buffer_max)
        self._first_reader: Reader[Publication | Recovery] | None = self._stream.read()
        self._confirmations: Stream[None] = Stream(buffer_max)
        self._error: Exception | None = None
        self._changed: asyncio.Event = asyncio.Event()

    async def subscribed(self) -> None:
        """Waits until the server has confirmed the subscription. Raises what has ended it, if it has ended."""
        while self.state == "pending":
            self._changed.clear()
            await self._changed.wait()
        if self.state == "unsubscribed":
            raise self._error or RingcastError(f"{self.name}: unsubscribed")

    def unsubscribe(self) -> None:
        """Ends the subscription and all iterations."""
        self._client._unsubscribe(self)

    async def publish(self, data: Any) -> None:
        """Publishes to this channel. Returns when the server has the publication."""
        await self._client.publish(self.name, data)

    def __aiter__(self) -> Reader[Publication]:
        return self._read(lambda item: isinstance(item, Publication))

    def recoveries(self) -> Reader[Recovery]:
        """The answers of the server to each subscribe that comes from now on. Without a history there are none."""
        return self._stream.read(lambda item: isinstance(item, Recovery))  # type: ignore[return-value]

    def with_recoveries(self) -> Reader[Publication | Recovery]:
        """Publications and the answers to subscribes, in their order: what follows a `Recovery` came after it."""
        return self._read(lambda item: True)

    def _read(self, accepts: Callable[[Any], bool]) -> Reader[Any]:
        reader, self._first_reader = self._first_reader, None
        if reader is None:
            return self._stream.read(accepts)
        reader._narrowed(accepts)
        return reader

    # ---- called by the client

    def _subscribe_data(self) -> dict[str, Any]:
        """The data of the next `#subscribe`."""
        packet: dict[str, Any] = {"channel": self.name}
        if self.wait_for_auth:
            packet["waitForAuth"] = True
        data = self._data
        if self._ask is not None:
            # Without a history there is nothing to recover; what is retained may have changed meanwhile.
            is_first = not self._has_begun or ("last" in self._ask and not self._has_history)
            recover = self.position.json() if self.position is not None else None
            data = {**(data or {}), **(self._ask if is_first else {"recover": recover})}
        if data is not None:
            packet["data"] = data
        return packet

    def _answered(self, answer: Any) -> None:
        """The server has confirmed the subscription."""
        had_begun, self._has_begun = self._has_begun, True
        self._enter("subscribed")
        self._confirmations.push(None)
        position = Position.of(answer.get("position")) if isinstance(answer, dict) else None
        self._has_history = position is not None
        if position is None:
            return
        recovery = Recovery(answer.get("recovered"), answer.get("reason"), position, answer.get("publications", 0))
        # If publications follow, each tells its own position.
        if recovery.publications == 0:
            self.position = position
        self._stream.push(recovery)
        asked_after = had_begun or (self._ask is not None and self._ask.get("recover") is not None)
        if recovery.recovered is False and asked_after and self._on_gap is not None:
            try:
                result = self._on_gap(recovery)
            except Exception as error:
                self._client._problem(f"{self.name}: on_gap has failed", error)
                return
            if result is not None:
                self._client._spawn(result)

    def _published(self, packet: dict[str, Any]) -> None:
        position = Position.of(packet.get("position"))
        if self.state == "pending" and position is not None:
            # With a history the answer comes first: this is the rest of an earlier subscription.
            return
        # Without positions nothing can be recovered without repetitions.
        self.position = position
        self._stream.push(Publication(self.name, packet.get("data"), position, packet.get("replayed", False) is True))

    def _positioned(self, packet: dict[str, Any]) -> None:
        """The server has withheld the last publications: up to there this client has all that it is to have."""
        position = Position.of(packet.get("position"))
        if self.state == "subscribed" and position is not None:
            self.position = position

    def _disconnected(self) -> None:
        if self.state == "subscribed":
            self._enter("pending")

    def _end(self, error: Exception | None) -> None:
        self._error = error
        self._enter("unsubscribed")
        self._stream.end(error)
        self._confirmations.end()

    def _enter(self, state: State) -> None:
        self.state = state
        self._changed.set()
