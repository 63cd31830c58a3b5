"""Calls that the server makes to this client: who answers them, and how."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from .outbox import Outbox
from .packet import ABSENT, encode

log = logging.getLogger("ringcast_client")


class CallError(Exception):
    """Raise it in a procedure to answer with an error. All that it has goes to the caller."""

    def __init__(self, message: str, name: str = "Error", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.name = name
        self.details = details

    def json(self) -> dict[str, Any]:
        return {"message": self.message, "name": self.name, **self.details}


#: What a procedure that raises anything but a `CallError` answers with. The log has the exception; the caller is told nothing of it.
_FAILED = {"message": "The procedure has failed", "name": "InternalError"}


class CallContext:
    """One call to a procedure of this client."""

    def __init__(self, procedure: str, data: Any) -> None:
        self.procedure = procedure
        #: The data of the call; `None` if there was none.
        self.data = data


Handler = Callable[[CallContext], Awaitable[Any]]


class OpenCalls:
    """The calls of one connection whose procedures run. A call ends with its procedure, or when it is cancelled."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._tasks: dict[int | float, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, cid: int | float, handler: Handler, call: CallContext) -> None:
        task = asyncio.create_task(self._run(cid, handler, call))
        self._tasks[cid] = task

        def ended(task: asyncio.Task[None]) -> None:
            if self._tasks.get(cid) is task:
                del self._tasks[cid]

        task.add_done_callback(ended)

    def refuse(self, cid: int | float, error: CallError) -> None:
        self._outbox.put(encode({"rid": cid, "error": error.json()}))

    def cancel(self, cid: Any) -> None:
        """Cancels the procedure of one call; its answer would not be read."""
        task = self._tasks.get(cid) if isinstance(cid, int | float) else None
        if task is not None:
            task.cancel()

    def cancel_all(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()

    async def finished(self) -> None:
        """Waits until no call is open."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _run(self, cid: int | float, handler: Handler, call: CallContext) -> None:
        try:
            try:
                result = await handler(call)
                answer = encode({"rid": cid, "data": ABSENT if result is None else result})
            except CallError as error:
                answer = encode({"rid": cid, "error": error.json()})
        except Exception:
            # The procedure has raised, or JSON has no form for what it returns or for a member of its error.
            log.exception("the procedure %s has failed; its caller gets an InternalError", call.procedure)
            answer = encode({"rid": cid, "error": _FAILED})
        self._outbox.put(answer)
