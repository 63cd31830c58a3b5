"""One connection to a server, which comes back by itself."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.uri import parse_uri

from .backoff import Backoff
from .channel import Channel, Gap
from .connection import Connection
from .errors import CallTimeoutError, ClosedError, ConnectionLostError, KickedOutError, ServerError, SlowReaderError
from .history import History
from .outbox import Outbox
from .packet import ABSENT, Position, claims_of, encode
from .presence import Presence
from .procedures import CallContext, CallError, Handler, OpenCalls
from .stream import Reader, Stream

if TYPE_CHECKING:
    from .service import Service

log = logging.getLogger("ringcast_client")

H = TypeVar("H", bound=Handler)


@dataclass(frozen=True)
class Connected:
    """The server has accepted the handshake."""

    id: str
    is_authenticated: bool
    #: Why the server has not accepted the token, if it has not.
    auth_error: ServerError | None


@dataclass(frozen=True)
class Disconnected:
    """The connection has ended. `retry_in` is the wait in seconds before the next attempt; `None` if there will be none."""

    code: int
    reason: str
    retry_in: float | None


@dataclass(frozen=True)
class AuthenticationChanged:
    """The client has a token, or has it no more (`token` is `None`). Keep the token to be logged in next time."""

    token: str | None
    claims: dict[str, Any] | None


@dataclass(frozen=True)
class Problem:
    """Something has failed that no caller waits for: a will that could not be left again, for example."""

    error: Exception


Event = Connected | Disconnected | AuthenticationChanged | Problem


#: Called with the data of an answer, or with why there is none.
_Answered = Callable[[Any, Exception | None], None]


@dataclass
class _Call:
    """A call of this client that has no answer yet."""

    answered: _Answered
    #: The connection that has carried it; `None` while it waits for one.
    outbox: Outbox | None


@dataclass(frozen=True)
class _Waiting:
    """A packet that waits for a connection, and its call if it is one."""

    message: bytes
    cid: int | None


class Client:
    """A client of a Ringcast server, or of another one that speaks SocketCluster's protocol 2.

    Used with `async with`, it connects at once and closes at the end. What is called before the connection is there waits for it.
    All of it belongs to one event loop.
    """

    def __init__(
        self,
        url: str = "ws://localhost:8000/socketcluster/",
        *,
        token: str | None = None,
        call_timeout: float = 10.0,
        connect_timeout: float = 20.0,
        close_timeout: float = 2.0,
        backoff: Backoff = Backoff(),
        message_bytes_max: int = 16 * 1024 * 1024,
        pending_max: int = 10_000,
        websocket: dict[str, Any] | None = None,
    ) -> None:
        """Makes a client that is not connected yet; it need not run in an event loop.

        Raises `websockets.InvalidURI` if the address is none.

        `token` is presented in each handshake. Times are in seconds. `message_bytes_max` bounds a message of the server, `pending_max` the
        packets that wait to be sent: beyond it, calls wait. `websocket` has further arguments for `websockets.connect`, such as `ssl`,
        `additional_headers`, `origin` and `proxy`.
        """
        parse_uri(url)  # an address that can never work is told at once
        self.url = url
        #: The id that the server has given to the connection; `None` while there is none.
        self.id: str | None = None
        self.state: Literal["closed", "connecting", "open"] = "closed"
        self.is_authenticated = False
        #: The signed token that the client presents; set it before a connection, or by `authenticate`.
        self.token = token
        #: Why the last attempt to connect has failed, or the last connection has ended.
        self.last_error: Exception | None = None
        self._call_timeout = call_timeout
        self._connect_timeout = connect_timeout
        self._close_timeout = close_timeout
        self._backoff = backoff
        self._pending_max = pending_max
        self._websocket_options: dict[str, Any] = {
            "max_size": message_bytes_max,
            "close_timeout": close_timeout,
            # The server of the protocol pings, and both sides measure by that.
            "ping_interval": None,
            "open_timeout": None,
            **(websocket or {}),
        }
        self._cid = 0
        self._calls: dict[int, _Call] = {}
        self._waiting: deque[_Waiting] = deque()
        self._room = asyncio.Event()
        self._outbox: Outbox | None = None
        self._open_calls: OpenCalls | None = None
        self._websocket: ClientConnection | None = None
        self._runner: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._is_closing = False
        self._closed: ClosedError | None = ClosedError(1000, "not connected yet: use `async with`, or call connect()")
        self._channels: dict[str, Channel] = {}
        self._presences: dict[str, Presence] = {}
        self._procedures: dict[str, Handler] = {}
        self._receivers: dict[str, Stream[Any]] = {}
        self._service: Service | None = None
        self._will: dict[str, Any] | None = None
        self._events: Stream[Event] = Stream(pending_max)
        self._tasks: set[asyncio.Future[Any]] = set()

    # ---- the connection

    async def __aenter__(self) -> Client:
        self.connect()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def connect(self) -> None:
        """Begins to connect, and to connect again after each end. Does nothing if it does so already."""
        if self._runner is None or self._runner.done():
            self._closed, self._is_closing = None, False
            self._opened = asyncio.Event()
            self.state = "connecting"
            self._runner = asyncio.create_task(self._run())

    async def connected(self) -> None:
        """Waits until the connection is open. Raises `ClosedError` if the client does not try any more."""
        while self.state != "open":
            if self._closed is not None:
                raise self._closed
            await self._opened.wait()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Sends what is still to be sent, closes the connection, and ends all iterations.

        The server then drops the client's will. With a code other than 1000 and 1005 it publishes the will.
        """
        self._is_closing = True
        websocket, outbox = self._websocket, self._outbox
        if websocket is not None and outbox is not None:
            try:
                async with asyncio.timeout(self._close_timeout):
                    while len(outbox) > 0 and outbox is self._outbox:
                        self._room.clear()
                        await self._room.wait()
            except TimeoutError:
                pass
            await websocket.close(code, reason)
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        for task in list(self._tasks):
            task.cancel()
        self._end(ClosedError(code, reason), None)

    def _attach(self, service: Service) -> None:
        if self._service is not None:
            raise RuntimeError("this client has a service already; one service can have many patterns")
        self._service = service

    async def _wait_closed(self) -> ClosedError:
        """Waits until the client does not try to connect any more, and returns why."""
        while self._closed is None:
            changes = self._events.read(lambda event: False)
            async for _ in changes:
                pass
        return self._closed

    def events(self) -> Reader[Event]:
        """What happens to the connection from now on: `Connected`, `Disconnected`, `AuthenticationChanged` and `Problem`."""
        return self._events.read()

    async def _run(self) -> None:
        try:
            await self._come_back()
        except Exception as error:
            # Another attempt would fail likewise: the options do not go together, or this package has a fault.
            log.exception("%s: the client gives up", self.url)
            self._end(ClosedError(1006, repr(error)), error)

    async def _come_back(self) -> None:
        """Connects again and again."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            connection = Connection(self)
            end = await connection.run(self.url, self._websocket_options)
            if self._is_closing:
                return
            self.last_error = end.error
            lasted = 0.0 if connection.opened_at is None else loop.time() - connection.opened_at
            failures = failures + 1 if connection.opened_at is None else 0
            wait = self._backoff.wait(failures, end.code, lasted)
            self._events.push(Disconnected(end.code, end.reason, wait))
            if wait is None:
                error = ClosedError(end.code, end.reason)
                error.__cause__ = end.error
                self._end(error, error)
                return
            log.info("%s: the connection has ended with %s (%s); the next attempt follows in %.1f s", self.url, end.code, end.reason or "no reason", wait)
            await asyncio.sleep(wait)

    def _open(self, connection: Connection, facts: dict[str, Any]) -> None:
        """The handshake is over: what has waited for it goes out, subscriptions first."""
        outbox = connection.outbox
        self.id, self.state = facts.get("id"), "open"
        self._websocket, self._outbox, self._open_calls = connection.websocket, outbox, OpenCalls(outbox)
        self.last_error = None
        auth_error = facts.get("authError")
        error = ServerError.of(auth_error) if auth_error is not None else None
        self.is_authenticated = facts.get("isAuthenticated") is True
        if self._will is not None:
            self._leave_will_again()
        if self._service is not None:
            self._service._opened()
        for channel in sorted(self._channels.values(), key=lambda channel: -channel.priority):
            self._send_subscribe(channel)
        while self._waiting:
            waiting = self._waiting.popleft()
            if waiting.cid is not None:
                call = self._calls.get(waiting.cid)
                if call is None:
                    continue  # its caller has given up
                call.outbox = outbox
            outbox.put(waiting.message)
        self._opened.set()
        self._room.set()
        self._events.push(Connected(self.id or "", self.is_authenticated, error))

    def _lost(self, outbox: Outbox) -> None:
        """A connection has ended, open or not."""
        outbox.close()
        if self._outbox is outbox:
            self._outbox = self._websocket = self.id = None
            self.state = "connecting"
            self._opened = asyncio.Event()
            if self._open_calls is not None:
                self._open_calls.cancel_all()
                self._open_calls = None
            if self._service is not None:
                self._service._lost()
            for channel in self._channels.values():
                channel._disconnected()
        for cid, call in list(self._calls.items()):
            if call.outbox is outbox:
                del self._calls[cid]
                call.answered(None, ConnectionLostError("the connection has ended before the answer came"))
        self._room.set()

    def _end(self, closed: ClosedError, error: Exception | None) -> None:
        """The client does not come back. Iterations end, with `error` if this was not its own wish."""
        self._closed, self.state = closed, "closed"
        self._waiting.clear()
        for cid, call in list(self._calls.items()):
            del self._calls[cid]
            call.answered(None, closed)
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel._end(error)
        for presence in list(self._presences.values()):
            presence._ended(error)
        for stream in self._receivers.values():
            stream.end(error)
        self._receivers.clear()
        self._opened.set()
        self._room.set()
        if self._service is not None:
            self._service._lost()
        self._events.end()
        self._events = Stream(self._pending_max)

    # ---- packets that come

    def _receive(self, packet: dict[str, Any], outbox: Outbox) -> None:
        event, rid = packet.get("event"), packet.get("rid")
        if isinstance(event, str):
            self._receive_event(event, packet.get("data"), packet.get("cid"), outbox)
        elif isinstance(rid, int):
            call = self._calls.get(rid)
            if call is None or call.outbox is not outbox:
                return  # its caller has given up
            del self._calls[rid]
            error = packet.get("error")
            call.answered(packet.get("data"), None if error is None else ServerError.of(error))

    def _receive_event(self, event: str, data: Any, cid: Any, outbox: Outbox) -> None:
        if outbox is not self._outbox:
            return  # nothing of this may come before the handshake is over
        if event == "#publish":
            name = data.get("channel") if isinstance(data, dict) else None
            channel = self._channels.get(name) if isinstance(name, str) else None
            if channel is not None:
                channel._published(data)
        elif event == "$position":
            name = data.get("channel") if isinstance(data, dict) else None
            channel = self._channels.get(name) if isinstance(name, str) else None
            if channel is not None:
                channel._positioned(data)
        elif event == "#setAuthToken":
            token = data.get("token") if isinstance(data, dict) else None
            if isinstance(token, str):
                self._authenticated(token)
            self._acknowledge(cid)
        elif event == "#removeAuthToken":
            self._deauthenticated()
            self._acknowledge(cid)
        elif event == "#kickOut":
            name = data.get("channel") if isinstance(data, dict) else None
            channel = self._channels.pop(name, None) if isinstance(name, str) else None
            if channel is not None:
                channel._end(KickedOutError(channel.name, str(data.get("message") or "")))
        elif isinstance(cid, int | float) and not isinstance(cid, bool):
            self._receive_call(event, data, cid)
        else:
            self._receive_transmit(event, data)

    def _receive_call(self, event: str, data: Any, cid: int | float) -> None:
        assert self._open_calls is not None
        found = self._service._resolve(event, data, True) if self._service is not None else None
        if found is not None:
            self._open_calls.begin(cid, *found)
        elif event in self._procedures:
            self._open_calls.begin(cid, self._procedures[event], CallContext(event, data))
        else:
            self._open_calls.refuse(cid, CallError(f"This client has no procedure {event}", "UnknownProcedureError"))

    def _receive_transmit(self, event: str, data: Any) -> None:
        assert self._open_calls is not None
        if event == "$cancel" and isinstance(data, dict):
            self._open_calls.cancel(data.get("rid"))
        if event == "$unserved" and isinstance(data, dict) and self._service is not None:
            self._service._unserved(data.get("procedure"))
        found = self._service._resolve(event, data, False) if self._service is not None else None
        if found is not None and len(self._tasks) < self._pending_max:
            handler, call = found
            self._spawn(handler(call))
        elif found is not None:
            self._problem(f"{event} is dropped", SlowReaderError(f"{self._pending_max} events are being handled"))
        stream = self._receivers.get(event)
        if stream is not None:
            stream.push(data)

    def _acknowledge(self, cid: Any) -> None:
        if isinstance(cid, int | float) and self._outbox is not None:
            self._outbox.put(encode({"rid": cid}))

    # ---- packets that go

    def _sent(self) -> None:
        """A connection has sent a packet."""
        self._room.set()

    def _call(self, answered: _Answered, outbox: Outbox | None) -> int:
        self._cid += 1
        self._calls[self._cid] = _Call(answered, outbox)
        return self._cid

    def _enqueue(self, procedure: str, data: Any, answered: _Answered) -> None:
        """Calls a procedure by the present connection, without waiting: `answered` is called once."""
        assert self._outbox is not None
        cid = self._call(answered, self._outbox)
        self._outbox.put(encode({"event": procedure, "data": data, "cid": cid}))

    async def _send(self, packet: dict[str, Any], cid: int | None) -> None:
        """Sends a packet now, or when there is a connection. Waits while too many packets wait already."""
        message = encode(packet)
        while self._closed is None and self._is_full():
            self._room.clear()
            await self._room.wait()
        if self._closed is not None:
            raise self._closed
        if self._outbox is not None:
            if cid is not None and cid in self._calls:
                self._calls[cid].outbox = self._outbox
            self._outbox.put(message)
        else:
            self._waiting.append(_Waiting(message, cid))

    def _is_full(self) -> bool:
        if self._outbox is not None:
            return len(self._outbox) >= self._pending_max
        if len(self._waiting) >= self._pending_max:
            # Calls whose callers have given up make room.
            self._waiting = deque(one for one in self._waiting if one.cid is None or one.cid in self._calls)
        return len(self._waiting) >= self._pending_max

    async def invoke(self, procedure: str, data: Any = ABSENT, *, timeout: float | None = None) -> Any:
        """Calls a procedure of the server, and returns the data of its answer.

        Raises `ServerError` if the answer is an error, `CallTimeoutError` if none comes in `timeout` seconds, and `ConnectionLostError` if the
        connection ends before.
        """
        future: asyncio.Future[tuple[Any, Exception | None]] = asyncio.get_running_loop().create_future()

        def answered(data: Any, error: Exception | None) -> None:
            if not future.done():
                future.set_result((data, error))

        cid = self._call(answered, None)
        seconds = self._call_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                await self._send({"event": procedure, "data": data, "cid": cid}, cid)
                answer, error = await future
        except TimeoutError as late:
            raise CallTimeoutError(f"{procedure}: no answer within {seconds} s") from (self.last_error or late)
        finally:
            self._calls.pop(cid, None)
        if error is not None:
            raise error
        return answer

    async def transmit(self, event: str, data: Any = ABSENT) -> None:
        """Sends a one-way event. Returns when it is in the queue; waits while the queue is full."""
        await self._send({"event": event, "data": data}, None)

    async def publish(self, channel: str, data: Any = ABSENT) -> None:
        """Publishes. Returns when the server has the publication, and raises `ServerError` if it refuses."""
        await self.invoke("#publish", {"channel": channel} | ({} if data is ABSENT else {"data": data}))

    async def transmit_publish(self, channel: str, data: Any = ABSENT) -> None:
        """Publishes without an answer."""
        await self.transmit("#publish", {"channel": channel} | ({} if data is ABSENT else {"data": data}))

    # ---- authentication

    @property
    def claims(self) -> dict[str, Any] | None:
        """The claims of the token, not verified; `None` without a token."""
        return claims_of(self.token)

    async def authenticate(self, token: str) -> None:
        """Presents a token. Raises `ServerError` if the server does not accept it; then the client is not authenticated any more."""
        try:
            answer = await self.invoke("#authenticate", token)
        except ServerError:
            self._deauthenticated()
            raise
        if isinstance(answer, dict) and answer.get("isAuthenticated") is True:
            self._authenticated(token)
            return
        self._deauthenticated()
        raise ServerError.of((answer or {}).get("authError") or "the server does not accept the token")

    async def login(self, data: Any, *, procedure: str = "login", timeout: float | None = None) -> Any:
        """Calls a procedure that gives the client a token, and waits for the token. Returns the answer of the procedure."""
        seconds = self._call_timeout if timeout is None else timeout
        changes = self._events.read(lambda event: isinstance(event, AuthenticationChanged) and event.token is not None)
        answer = await self.invoke(procedure, data, timeout=seconds)
        try:
            async with asyncio.timeout(seconds):
                await anext(changes)
        except (TimeoutError, StopAsyncIteration) as error:
            raise CallTimeoutError(f"{procedure}: no token within {seconds} s") from error
        return answer

    async def deauthenticate(self) -> None:
        """Forgets the token, here and at the server. Subscriptions stay."""
        self._deauthenticated()
        if self._outbox is not None:
            await self._send({"event": "#removeAuthToken"}, None)

    def _authenticated(self, token: str) -> None:
        self.token, self.is_authenticated = token, True
        self._events.push(AuthenticationChanged(token, self.claims))
        for channel in list(self._channels.values()):
            if channel.wait_for_auth and channel._asked is not self._outbox:
                self._send_subscribe(channel)

    def _deauthenticated(self) -> None:
        had_token = self.token is not None or self.is_authenticated
        self.token, self.is_authenticated = None, False
        if had_token:
            self._events.push(AuthenticationChanged(None, None))

    # ---- channels

    def subscribe(
        self,
        channel: str,
        *,
        last: int | None = None,
        since: int | None = None,
        position: Position | None = None,
        recover: bool = True,
        data: Any = None,
        on_gap: Gap | None = None,
        priority: int = 0,
        wait_for_auth: bool = False,
        buffer_max: int = 10_000,
    ) -> Channel:
        """Subscribes, and subscribes again after each reconnect. Returns the subscription at once; one that is there already stays as it is.

        The first subscribe asks for the `last` publications, for all `since` a time in Unix milliseconds, or for what follows a `position`
        that was kept from an earlier visit. Each later one asks for what was missed. `on_gap` is called when something was missed that the
        server can no longer give. With `recover=False` nothing is asked for, and `data` may be any JSON value; else it is a `dict` or `None`.

        `priority` orders the subscribes after a connect, the highest first. With `wait_for_auth` the client subscribes only while it is
        authenticated. A reader that leaves `buffer_max` publications unread gets a `SlowReaderError`.
        """
        if self._closed is not None:
            raise self._closed
        known = self._channels.get(channel)
        if known is not None:
            return known
        if recover and data is not None and not isinstance(data, dict):
            raise TypeError("with recover=True, data is a dict or None")
        ask: dict[str, Any] | None = None
        if recover and last is not None:
            ask = {"last": last}
        elif recover and since is not None:
            ask = {"since": since}
        elif recover:
            ask = {"recover": None if position is None else position.json()}
        made = Channel(
            self, channel, ask=ask, position=position, data=data, on_gap=on_gap, priority=priority, wait_for_auth=wait_for_auth, buffer_max=buffer_max
        )
        self._channels[channel] = made
        self._send_subscribe(made)
        return made

    def unsubscribe(self, channel: str) -> None:
        """Ends a subscription and all iterations of it."""
        known = self._channels.get(channel)
        if known is not None:
            self._unsubscribe(known)

    def _send_subscribe(self, channel: Channel) -> None:
        outbox = self._outbox
        if outbox is None or (channel.wait_for_auth and not self.is_authenticated):
            return

        def answered(data: Any, error: Exception | None) -> None:
            if self._channels.get(channel.name) is not channel:
                return
            if error is None:
                channel._answered(data)
            elif isinstance(error, ServerError) and error.name != "BadConnectionError":
                del self._channels[channel.name]
                channel._end(error)

        channel._asked = outbox
        cid = self._call(answered, outbox)
        outbox.put(encode({"event": "#subscribe", "data": channel._subscribe_data(), "cid": cid}))

    def _unsubscribe(self, channel: Channel) -> None:
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            if self._outbox is not None:
                self._outbox.put(encode({"event": "#unsubscribe", "data": channel.name}))
            channel._end(None)

    # ---- procedures and receivers

    def procedure(self, name: str) -> Callable[[H], H]:
        """Decorates the function that answers when the server calls `name`. It gets a `CallContext`; what it returns is the answer.

        A `CallError` that it raises is the answer, too. It is cancelled when the connection ends.
        """

        def register(handler: H) -> H:
            self._procedures[name] = handler
            return handler

        return register

    def receiver(self, event: str) -> Reader[Any]:
        """The data of each one-way event of the server with this name, from now on."""
        if self._closed is not None:
            raise self._closed
        return self._receivers.setdefault(event, Stream(self._pending_max)).read()

    # ---- what Ringcast's channels remember

    async def history(
        self,
        channel: str,
        *,
        last: int | None = None,
        since: int | None = None,
        recover: Position | None = None,
        limit: int | None = None,
    ) -> History:
        """Past publications, without a subscription: the `last`, all `since` a time, or all after a position. Without any: the position alone."""
        ask: dict[str, Any] = {"channel": channel}
        if last is not None:
            ask["last"] = last
        elif since is not None:
            ask["since"] = since
        else:
            ask["recover"] = None if recover is None else recover.json()
        if limit is not None:
            ask["limit"] = limit
        return History.of(await self.invoke("$history", ask))

    async def retain(self, channel: str, data: Any) -> None:
        """Publishes data, which is the retained publication of the channel from now on. The server must speak MQTT."""
        await self.invoke("$retain", {"channel": channel, "data": data})

    async def clear_retained(self, channel: str) -> None:
        """Publishes without data, and the channel has no retained publication any more."""
        await self.invoke("$retain", {"channel": channel})

    def presence(self, channel: str) -> Presence:
        """The members of a channel, kept up to date until `Presence.end`."""
        known = self._presences.get(channel)
        if known is None:
            known = self._presences[channel] = Presence(self, channel)
        return known

    def _forget_presence(self, presence: Presence) -> None:
        if self._presences.get(presence.channel) is presence:
            del self._presences[presence.channel]

    async def set_info(self, channel: str, info: Any) -> None:
        """Sets what others see of this client in a channel; `None` removes it."""
        await self.invoke("$presence_info", {"channel": channel, "info": info})

    async def set_will(
        self,
        channel: str,
        data: Any = ABSENT,
        *,
        delay_ms: int | None = None,
        session: str | None = None,
        retain: bool | None = None,
    ) -> None:
        """Leaves what the server publishes if this client vanishes, and leaves it again after each reconnect."""
        members = {"channel": channel, "data": data, "delay_ms": delay_ms, "session": session, "retain": retain}
        will = {key: value for key, value in members.items() if value is not ABSENT and (value is not None or key == "data")}
        await self.invoke("$will", will)
        self._will = will

    async def clear_will(self) -> None:
        """Takes the will back."""
        self._will = None
        await self.invoke("$will", None)

    def _leave_will_again(self) -> None:
        def answered(data: Any, error: Exception | None) -> None:
            if error is not None and not isinstance(error, ConnectionLostError):
                self._problem("the will could not be left again", error)

        self._enqueue("$will", self._will, answered)

    def _problem(self, what: str, error: Exception) -> None:
        log.error("%s: %s", self.url, what, exc_info=error)
        self._events.push(Problem(error))

    def _spawn(self, awaitable: Awaitable[Any]) -> None:
        """Runs something that nobody waits for; a failure is a `Problem` and in the log."""
        task = asyncio.ensure_future(awaitable)
        self._tasks.add(task)

        def ended(task: asyncio.Future[Any]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception):
                self._problem("a handler has failed", error)

        task.add_done_callback(ended)
