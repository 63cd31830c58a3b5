"""The errors that this package raises. Each says what the caller can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RingcastError(Exception):
    """The base of all errors of this package."""


class ServerError(RingcastError):
    """The server has answered with an error. Another attempt of the same kind gets the same answer, unless its name says otherwise."""

    def __init__(self, name: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message
        #: All members of the error as the server has sent it.
        self.details: dict[str, Any] = dict(details or {})

    @classmethod
    def of(cls, error: Any) -> ServerError:
        """The error in an answer: an object with a name and a message, or a text."""
        if isinstance(error, Mapping):
            return cls(str(error.get("name", "Error")), str(error.get("message", "")), error)
        return cls("Error", str(error))


class ConnectionLostError(RingcastError):
    """The connection has ended before the answer came: whether the call was carried out is not known."""


class CallTimeoutError(RingcastError, TimeoutError):
    """No answer has come in time. `__cause__` says why there is no connection, if there is none."""


class ClosedError(RingcastError):
    """The client is closed and does not reconnect: `Client.close` was called, or the server has sent it away."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code}" + (f": {reason}" if reason else ""))
        self.code = code
        self.reason = reason


class KickedOutError(RingcastError):
    """The server has ended the subscription."""

    def __init__(self, channel: str, message: str) -> None:
        super().__init__(f"kicked out of {channel}" + (f": {message}" if message else ""))
        self.channel = channel
        self.message = message


class UnservedError(RingcastError):
    """The rules, or the claims of this client, have changed: it may not serve a procedure any more."""


class SlowReaderError(RingcastError):
    """The reader was so slow that its buffer was full; what came after that was not kept."""
