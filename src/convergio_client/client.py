"""The blocking client: track what happened, ask before it happens, read what was counted.

    with Convergio("https://billing.example", key, spool="usage.spool") as billing:
        billing.track("acme", "ai.request", {"quantity": 1})
        with billing.authorize("acme", "questions") as permit:
            permit.used = answer(question)

With a spool, `track` returns when the event is durable on this machine, and never waits for the
server; a commit and a release are durable intents in the same way. Without one, each goes to the
server at once, and raises when the server cannot be reached within `patience_seconds`.
"""

import atexit
import logging
import time as time_module
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx

from convergio_client import flows, protocol
from convergio_client.engine import (
    CLOSE_SECONDS,
    PATIENCE_SECONDS,
    SOURCE,
    TIMEOUT_SECONDS,
    Engine,
)
from convergio_client.errors import ClientError
from convergio_client.flows import Flow, Pause
from convergio_client.lease import WANTED, Lease
from convergio_client.model import (
    Backlog,
    OnRejected,
    Permit,
    Quantity,
    Quota,
    Rejection,
    Usage,
)
from convergio_client.spool import Spool

T = TypeVar("T")
_log: Final = logging.getLogger("convergio_client")


class Convergio:
    """A client for threads. One is enough for a process; it survives being forked."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        source: str = SOURCE,
        spool: Spool | str | Path | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        on_rejected: OnRejected | None = None,
        flush_at_exit: bool = False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Name the server, the key and, for durable tracking, the spool's file.

        `source` names this program in every event. `timeout_seconds` is for one request,
        `patience_seconds` for the pauses between repeated ones. `flush_at_exit` closes the client
        when the interpreter ends. Raises: Invalid.
        """
        self._engine = Engine(
            url,
            key,
            source=source,
            spool=spool,
            timeout_seconds=timeout_seconds,
            patience_seconds=patience_seconds,
            on_rejected=on_rejected,
            transport=transport,
        )
        if flush_at_exit:
            atexit.register(self.close)

    def track(
        self,
        customer: str,
        type: str,  # noqa: A002 - the CloudEvents attribute's own name
        data: Mapping[str, object] | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the CloudEvents attribute's own name
        time: datetime | None = None,
    ) -> str:
        """Report that something happened; return the event's id. It is counted exactly once.

        With an `id` of your own, give the `time` too: tracking it again is then the same event,
        and with another time or other data it is a conflict.
        Raises: Invalid, SpoolFull, SpoolBroken, Closed; without a spool Rejected, Unavailable.
        """
        item = self._engine.event(customer, type, data, event_id=id, time=time)
        if not self._engine.keep(item):
            self._run(flows.count(item.body, self._engine.patience))
        return item.target

    @contextmanager
    def authorize(self, customer: str, meter: str, quantity: Quantity = 1) -> Iterator[Permit]:
        """Hold quota while the block runs; count it when the block ends well, else give it back.

        Raises: Denied before the block runs, Rejected, Unavailable.
        """
        permit = self.reserve(customer, meter, quantity)
        try:
            yield permit
        except BaseException:
            self._let_go(permit)
            raise
        self.commit(permit)

    def reserve(self, customer: str, meter: str, quantity: Quantity = 1) -> Permit:
        """Hold quota until `commit`, `release` or its expiry. Raises: Denied, Unavailable."""
        return self._run(flows.reserve(customer, meter, quantity, self._engine.patience))

    def commit(self, permit: Permit, used: Quantity | None = None) -> None:
        """Count what was really used; twice is once. With a spool, a durable intent.

        Raises: Invalid, SpoolFull, SpoolBroken; without a spool Rejected, Unavailable.
        """
        self._settle("commit", permit, used)

    def release(self, permit: Permit) -> None:
        """Give back what is held; twice is once. Raises: as `commit`."""
        self._settle("release", permit, None)

    def lease(self, customer: str, meter: str, *, wanted: int = WANTED) -> Lease:
        """Take a slice of a quota and decide in this process; close it, or use it in a `with`.

        Hold one for a customer and meter in each process: see `convergio_client.lease`.
        """
        return Lease(self._engine.send, customer, meter, wanted=wanted)

    def quota(self, customer: str, meter: str) -> Quota:
        """Return a quota now. Raises: Rejected, Unavailable."""
        return self._run(flows.quota(customer, meter, self._engine.patience))

    def usage(
        self,
        meter: str,
        *,
        customer: str | None = None,
        by: str = "month",
        start: datetime | None = None,
        end: datetime | None = None,
        time_zone: str = "UTC",
    ) -> list[Usage]:
        """Return usage in buckets of local time, right to the last committed event.

        Raises: Invalid, Rejected, Unavailable.
        """
        call = protocol.ask_usage(
            meter, customer=customer, by=by, start=start, end=end, time_zone=time_zone
        )
        return self._run(flows.usage(call, self._engine.patience))

    def backlog(self) -> Backlog:
        """Return what the spool holds and what keeps it from being delivered."""
        return self._engine.backlog()

    def rejected(self) -> Iterator[Rejection]:
        """Yield what the server refused for good, oldest first."""
        return self._engine.spooled().rejected()

    def resend(self, rejections: Sequence[Rejection]) -> None:
        """Deliver rejections again, with their ids, once the cause is mended."""
        self._engine.spooled().resend(rejections)

    def forget(self, rejections: Sequence[Rejection]) -> None:
        """Delete rejections that were dealt with."""
        self._engine.spooled().forget(rejections)

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until all that was tracked so far is with the server; False when it is not."""
        return self._engine.flush(timeout_seconds)

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Flush and close; what could not be delivered in time waits in the spool."""
        atexit.unregister(self.close)
        self._engine.close(timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Name the server, never the key."""
        return f"Convergio({self._engine.url!r})"

    def _settle(self, kind: str, permit: Permit, used: Quantity | None) -> None:
        item = self._engine.settlement(kind, permit, used)
        if not self._engine.keep(item):
            patience = self._engine.patience
            self._run(flows.settle(kind, permit.reservation, item.body, patience))

    def _let_go(self, permit: Permit) -> None:
        """Release on the way out of a failed block, whose own error must not be hidden."""
        try:
            self.release(permit)
        except ClientError as error:
            _log.warning("%s was not released and expires: %s", permit.reservation, error)

    def _run(self, flow: Flow[T]) -> T:
        outcome: flows.Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                time_module.sleep(step.seconds)
                outcome = None
            else:
                outcome = self._engine.send(step)
