"""Packets of SocketCluster's protocol 2 as JSON text, and the values in them that have a type of their own."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


class _Absent(Enum):
    ABSENT = "absent"


#: Stands for data that a packet does not have, which is not the same as `None`, JSON's null.
ABSENT: Final = _Absent.ABSENT


@dataclass(frozen=True)
class Position:
    """The place of a publication in the order of all publications. Keep it as it is: only the server compares positions."""

    epoch: str
    offset: int

    @classmethod
    def of(cls, value: Any) -> Position | None:
        """The position in a packet, if it has one."""
        if isinstance(value, dict) and isinstance(value.get("epoch"), str) and isinstance(value.get("offset"), int):
            return cls(value["epoch"], value["offset"])
        return None

    def json(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "offset": self.offset}


def encode(packet: dict[str, Any]) -> bytes:
    """The text of a packet. Raises `TypeError` or `ValueError` if JSON has no form for a value in it."""
    packet = {key: value for key, value in packet.items() if value is not ABSENT}
    text = json.dumps(packet, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A surrogate without its other half is no UTF-8; JSON can name it.
        return json.dumps(packet, separators=(",", ":"), allow_nan=False).encode()


def decode(text: str) -> list[dict[str, Any]]:
    """The packets of a message. What is no packet is left out, as other clients do."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return []
    packets = message if isinstance(message, list) else [message]
    return [packet for packet in packets if isinstance(packet, dict)]


def claims_of(token: str | None) -> dict[str, Any] | None:
    """The claims of a token. They are not verified: only the server can."""
    try:
        part = (token or "").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None
