"""The members of a channel, kept up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .errors import RingcastError
from .stream import Reader

if TYPE_CHECKING:
    from .client import Client

#: Members that one call asks for.
_PAGE = 1000

Key = str | int | float


@dataclass(frozen=True)
class Member:
    """One member. `user` is `None` for a client without a user, and `since` is in Unix milliseconds."""

    user: str | int | float | None
    since: int
    info: Any = None
    #: The socket ids of its connections, at most 100. A member that an event has brought has none here, unless it has no user.
    connections: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What it is known by: its user, or the socket id of a client without one."""
        return self.user if self.user is not None else self.connections[0]


class Presence:
    """The members of a channel. Iterating it gives all of them, by key: now, and after changes. Made by `Client.presence`.

    The policy of the channel must have `presence_events`. A reader that is slower than the changes gets the newest members only.
    """

    def __init__(self, client: Client, channel: str) -> None:
        self.channel = channel
        #: How many members there are. Exact even if the channel is so large that its events leave changes out.
        self.count = 0
        #: Whether `members` has all of them: the events of a large channel leave changes out. `refresh` fetches the list anew.
        self.is_complete = False
        #: Why the list could not be fetched; `None` if it could. After a reconnect it is fetched again.
        self.error: Exception | None = None
        self._client = client
        self._members: dict[Key, Member] = {}
        #: Counts the changes; readers wait for the event.
        self._version = 0
        self._changed = asyncio.Event()
        self._end_error: Exception | None = None
        self._has_ended = False
        #: Events that have come while the list is fetched; `None` otherwise.
        self._pending: list[dict[str, Any]] | None = []
        self._refreshes = 0
        self._events = client.subscribe(f"$presence/{channel}", recover=False)
        self._confirmations = self._events._confirmations.read()
        if self._events.state == "subscribed":
            self._confirmations._push(None)
        self._tasks = [
            asyncio.create_task(self._follow_events(aiter(self._events))),
            asyncio.create_task(self._follow_subscribes()),
        ]

    @property
    def members(self) -> Mapping[Key, Member]:
        """The members as they are known now. The mapping does not change when they do."""
        return MappingProxyType(dict(self._members))

    async def refresh(self) -> None:
        """Fetches the whole list anew."""
        # Of several that overlap, the last one counts: the others may have been answered before events that are known by now.
        self._refreshes += 1
        number = self._refreshes
        self._pending = []
        members: dict[Key, Member] = {}
        after: Any = None
        try:
            while True:
                ask = {"channel": self.channel, "limit": _PAGE} | ({} if after is None else {"after": after})
                page = await self._client.invoke("$presence", ask)
                for one in page["members"]:
                    member = _member(one)
                    members[member.key] = member
                count, after = page["count"], page.get("next")
                if after is None:
                    break
        except RingcastError as error:
            if number == self._refreshes:
                self.error, self._pending = error, None
            return
        if number != self._refreshes:
            return
        self.error, self._members, self.count, self.is_complete = None, members, count, True
        pending, self._pending = self._pending or [], None
        for event in pending:
            self._apply(event)
        self._change()

    def end(self) -> None:
        """Ends all iterations and the subscription."""
        self._events.unsubscribe()
        self._ended(None)

    async def __aiter__(self) -> AsyncIterator[Mapping[Key, Member]]:
        seen = 0
        while not self._has_ended:
            if self._version > seen:
                seen = self._version
                yield self.members
            else:
                changed = self._changed
                await changed.wait()
        if self._end_error is not None:
            raise self._end_error

    async def _follow_events(self, events: Reader[Any]) -> None:
        error: Exception | None = None
        try:
            async for event in events:
                if not isinstance(event.data, dict):
                    continue
                if self._pending is not None:
                    self._pending.append(event.data)
                    continue
                self._apply(event.data)
                self._change()
        except RingcastError as why:
            error = why
        self._ended(error)

    async def _follow_subscribes(self) -> None:
        async for _ in self._confirmations:
            await self.refresh()

    def _change(self) -> None:
        self._version += 1
        # Each reader waits for the event that was there when it began to wait.
        self._changed.set()
        self._changed = asyncio.Event()

    def _ended(self, error: Exception | None) -> None:
        if self._has_ended:
            return
        self._has_ended, self._end_error = True, error
        for task in self._tasks:
            task.cancel()
        self._client._forget_presence(self)
        self._change()

    def _apply(self, event: dict[str, Any]) -> None:
        for one in event.get("left", ()):
            self._members.pop(_member(one).key, None)
        for one in (*event.get("joined", ()), *event.get("changed", ())):
            member = _member(one)
            known = self._members.get(member.key)
            if known is not None and not member.connections:
                member = Member(member.user, member.since, member.info, known.connections)
            self._members[member.key] = member
        self.count = event.get("count", len(self._members))
        if event.get("sampled", False):
            self.is_complete = False


def _member(one: dict[str, Any]) -> Member:
    return Member(one.get("user"), one.get("since", 0), one.get("info"), tuple(one.get("connections", ())))
