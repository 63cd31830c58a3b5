"""Past publications of a channel, as `Client.history` returns them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .packet import Position


@dataclass(frozen=True)
class HistoryEntry:
    """One past publication. `time` is in Unix milliseconds."""

    position: Position
    time: int
    data: Any


@dataclass(frozen=True)
class History:
    """An answer to `$history`. Every publication of the channel up to `position` was considered."""

    position: Position
    #: Oldest first.
    publications: list[HistoryEntry]
    #: For `recover` with a position: whether all publications after it are known.
    recovered: bool | None
    #: Why not.
    reason: str | None
    #: Whether `limit`, or the size of an answer, has left publications out.
    more: bool
    #: With `more`, for `recover`: where to ask again.
    after: Position | None = None

    @classmethod
    def of(cls, answer: dict[str, Any]) -> History:
        position = Position.of(answer["position"])
        if position is None:
            raise ValueError("an answer to $history without a position")
        last = answer["publications"][-1]["offset"] if answer["publications"] else None
        after = answer.get("after", last)
        return cls(
            position=position,
            publications=[
                HistoryEntry(Position(position.epoch, one["offset"]), one["time"], one.get("data"))
                for one in answer["publications"]
            ],
            recovered=answer.get("recovered"),
            reason=answer.get("reason"),
            more=answer.get("more", False),
            after=Position(position.epoch, after) if answer.get("more", False) and after is not None else None,
        )
