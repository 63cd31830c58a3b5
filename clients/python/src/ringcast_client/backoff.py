"""How long a client waits before it connects again."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: After these ends the first attempt is made at once, as other SocketCluster clients do: the server's ping timed out, it has missed our
#: pong, or the connection was closed without a code.
_AT_ONCE = (4000, 4001, 1005)


@dataclass(frozen=True)
class Backoff:
    """The waits in seconds: `(initial + random * randomness) * multiplier ** failures`, at most `maximum`."""

    initial: float = 0.5
    randomness: float = 1.5
    multiplier: float = 1.5
    maximum: float = 60.0

    def wait(self, failures: int, code: int, lasted: float) -> float | None:
        """The wait after a connection has ended with `code`, or `None` if the client must not come back.

        `failures` counts the attempts without a handshake since the last handshake; `lasted` says how long the connection was open.
        """
        if code == 1000 or code >= 4500:
            return None
        # A connection that ends as soon as it is open must not be made again without a wait.
        if code in _AT_ONCE and failures == 0 and lasted > self.initial:
            return 0.0
        # Beyond this the wait is the maximum anyway, and the power might not fit into a float.
        growth = self.multiplier ** min(failures, 64)
        return min(self.maximum, (self.initial + random.random() * self.randomness) * growth)
