"""An asyncio client for Ringcast, and for any other server that speaks SocketCluster's protocol 2.

`Client` is one connection that comes back by itself. `Client.subscribe` gives a `Channel`, an async iterable of publications that
recovers what was missed. `Service` answers procedures that Ringcast asks of it. The README shows each of them at work.
"""

from .backoff import Backoff
from .channel import Channel, Gap, Publication, Recovery
from .client import AuthenticationChanged, Client, Connected, Disconnected, Problem
from .errors import (
    CallTimeoutError,
    ClosedError,
    ConnectionLostError,
    KickedOutError,
    RingcastError,
    ServerError,
    SlowReaderError,
    UnservedError,
)
from .history import History, HistoryEntry
from .packet import ABSENT, Position
from .presence import Member, Presence
from .procedures import CallContext, CallError
from .service import Caller, Service, ServiceCall

__all__ = [
    "ABSENT",
    "AuthenticationChanged",
    "Backoff",
    "CallContext",
    "CallError",
    "CallTimeoutError",
    "Caller",
    "Channel",
    "Client",
    "ClosedError",
    "Connected",
    "ConnectionLostError",
    "Disconnected",
    "Gap",
    "History",
    "HistoryEntry",
    "KickedOutError",
    "Member",
    "Position",
    "Presence",
    "Problem",
    "Publication",
    "Recovery",
    "RingcastError",
    "ServerError",
    "Service",
    "ServiceCall",
    "SlowReaderError",
    "UnservedError",
]
