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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack

import httpx

from convergio_client import flows, protocol
from convergio_client.engine import CLOSE_SECONDS, Engine, Options
from convergio_client.errors import ClientError
from convergio_client.flows import Flow, Pause
from convergio_client.lease import WANTED, Lease
from convergio_client.model import (
    Backlog,
    Event,
    Permit,
    Quantity,
    Quota,
    Rejection,
    Usage,
)

T = TypeVar("T")
_log: Final = logging.getLogger("convergio_client")


class Convergio:
    """A client for threads. One is enough for a process; it survives being forked."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        flush_at_exit: bool = False,
        transport: httpx.BaseTransport | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Name the server, the key and, for durable tracking, `spool=` the spool's file.

        The options are in `convergio_client.engine.Options`. `flush_at_exit` closes the client
        when the interpreter ends. Raises: Invalid.
        """
        self._engine = Engine(url, key, transport, **options)
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

    def track_many(self, events: Iterable[Event]) -> list[str]:
        """Report many events at once; return their ids, in order. Each is counted exactly once.

        With a spool all of them are stored, or none. Without one all are sent, and one that is
        refused does not keep the others from being counted.
        Raises: Invalid, SpoolFull, SpoolBroken, Closed; without a spool SomeRejected, Unavailable.
        """
        items = self._engine.events(events)
        if not self._engine.keep(*items):
            self._run(flows.count_many(items, self._engine.patience))
        return [item.target for item in items]

    def void(self, customer: str, event_id: str, *, source: str | None = None) -> str:
        """Take an event back, counted or still to come; return the correction's own id.

        `source` is the event's, when another program sent it. The key needs the scope
        `usage:correct`. Raises: as `track`.
        """
        return self._correct("convergio.void", customer, event_id, source, None)

    def amend(
        self,
        customer: str,
        event_id: str,
        data: Mapping[str, object],
        *,
        source: str | None = None,
    ) -> str:
        """Let an event count with these properties instead, all of them; as `void` otherwise."""
        return self._correct("convergio.amend", customer, event_id, source, data)

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

    def reserve(
        self,
        customer: str,
        meter: str,
        quantity: Quantity = 1,
        *,
        id: str | None = None,  # noqa: A002 - as an event's own id
    ) -> Permit:
        """Hold quota until `commit`, `release` or its expiry.

        With an `id` of your own, asking again with it, from any process, is the same hold.
        Raises: Invalid, Denied, Rejected, Unavailable.
        """
        ask_id = self._engine.new_id() if id is None else id
        patience = self._engine.patience
        return self._run(flows.reserve(customer, meter, quantity, ask_id, patience))

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
        by_group: bool = False,
    ) -> list[Usage]:
        """Return usage in buckets of local time, right to the last committed event.

        `by_group` splits each bucket by what the meter groups by.
        Raises: Invalid, Rejected, Unavailable.
        """
        call = protocol.ask_usage(
            meter,
            customer=customer,
            by=by,
            start=start,
            end=end,
            time_zone=time_zone,
            by_group=by_group,
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

    def _correct(
        self,
        kind: str,
        customer: str,
        of: str,
        source: str | None,
        data: Mapping[str, object] | None,
    ) -> str:
        item = self._engine.correction(kind, customer, of, source, data)
        if not self._engine.keep(item):
            self._run(flows.count(item.body, self._engine.patience))
        return item.target

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
