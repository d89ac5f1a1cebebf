"""The awaiting client: the blocking one's twin, for asyncio.

What is not I/O is shared (`engine`, `flows`, `protocol`); the spool is a local file and is written
in a thread, its delivery is the same background thread as the blocking client's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack

import httpx

from convergio_client import engine, flows, protocol
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
from convergio_client.protocol import Call, Reply, Silence
from convergio_client.spool import Item

T = TypeVar("T")
_log: Final = logging.getLogger("convergio_client")


class AsyncConvergio:
    """A client for one event loop. Make it in the process that uses it, after any fork."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        spool_transport: httpx.BaseTransport | None = None,
        **options: Unpack[Options],
    ) -> None:
        """As `Convergio`; `on_rejected` is called from the spool's thread. Raises: Invalid."""
        self._engine = Engine(url, key, spool_transport, **options)
        self._http = httpx.AsyncClient(
            base_url=self._engine.url,
            headers=self._engine.headers(),
            timeout=self._engine.timeout_seconds,
            transport=transport,
        )

    async def track(
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
        if not await self._keep(item):
            await self._run(flows.count(item.body, self._engine.patience))
        return item.target

    async def track_many(self, events: Iterable[Event]) -> list[str]:
        """Report many events at once; return their ids, in order. Each is counted exactly once.

        With a spool all of them are stored, or none. Without one all are sent, and one that is
        refused does not keep the others from being counted.
        Raises: Invalid, SpoolFull, SpoolBroken, Closed; without a spool SomeRejected, Unavailable.
        """
        items = self._engine.events(events)
        if not await self._keep(*items):
            await self._run(flows.count_many(items, self._engine.patience))
        return [item.target for item in items]

    async def void(self, customer: str, event_id: str, *, source: str | None = None) -> str:
        """Take an event back, counted or still to come; return the correction's own id.

        `source` is the event's, when another program sent it. The key needs the scope
        `usage:correct`. Raises: as `track`.
        """
        return await self._correct("convergio.void", customer, event_id, source, None)

    async def amend(
        self,
        customer: str,
        event_id: str,
        data: Mapping[str, object],
        *,
        source: str | None = None,
    ) -> str:
        """Let an event count with these properties instead, all of them; as `void` otherwise."""
        return await self._correct("convergio.amend", customer, event_id, source, data)

    @asynccontextmanager
    async def authorize(
        self, customer: str, meter: str, quantity: Quantity = 1
    ) -> AsyncIterator[Permit]:
        """Hold quota while the block runs; count it when the block ends well, else give it back.

        Raises: Denied before the block runs, Rejected, Unavailable.
        """
        permit = await self.reserve(customer, meter, quantity)
        try:
            yield permit
        except BaseException:
            await self._let_go(permit)
            raise
        await self.commit(permit)

    async def reserve(
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
        return await self._run(flows.reserve(customer, meter, quantity, ask_id, patience))

    async def commit(self, permit: Permit, used: Quantity | None = None) -> None:
        """Count what was really used; twice is once. With a spool, a durable intent.

        Raises: Invalid, SpoolFull, SpoolBroken; without a spool Rejected, Unavailable.
        """
        await self._settle("commit", permit, used)

    async def release(self, permit: Permit) -> None:
        """Give back what is held; twice is once. Raises: as `commit`."""
        await self._settle("release", permit, None)

    @asynccontextmanager
    async def lease(
        self, customer: str, meter: str, *, wanted: int = WANTED
    ) -> AsyncIterator[Lease]:
        """Take a slice of a quota and decide in this process while the block runs.

        `take`, `done` and `give_back` of what it yields never wait; a thread of its own renews the
        lease. Hold one for a customer and meter in each process: see `convergio_client.lease`.
        """
        held = await asyncio.to_thread(Lease, self._engine.send, customer, meter, wanted=wanted)
        try:
            yield held
        finally:
            await asyncio.shield(asyncio.to_thread(held.close))

    async def quota(self, customer: str, meter: str) -> Quota:
        """Return a quota now. Raises: Rejected, Unavailable."""
        return await self._run(flows.quota(customer, meter, self._engine.patience))

    async def usage(
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
        return await self._run(flows.usage(call, self._engine.patience))

    async def backlog(self) -> Backlog:
        """Return what the spool holds and what keeps it from being delivered."""
        return await asyncio.to_thread(self._engine.backlog)

    def rejected(self) -> Iterator[Rejection]:
        """Yield what the server refused for good, oldest first; reads the local file."""
        return self._engine.spooled().rejected()

    async def resend(self, rejections: Sequence[Rejection]) -> None:
        """Deliver rejections again, with their ids, once the cause is mended."""
        await asyncio.to_thread(self._engine.spooled().resend, rejections)

    async def forget(self, rejections: Sequence[Rejection]) -> None:
        """Delete rejections that were dealt with."""
        await asyncio.to_thread(self._engine.spooled().forget, rejections)

    async def flush(self, timeout_seconds: float) -> bool:
        """Wait until all that was tracked so far is with the server; False when it is not."""
        return await asyncio.to_thread(self._engine.flush, timeout_seconds)

    async def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Flush and close; what could not be delivered in time waits in the spool."""
        await asyncio.to_thread(self._engine.close, timeout_seconds)
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        """Name the server, never the key."""
        return f"AsyncConvergio({self._engine.url!r})"

    async def _keep(self, *items: Item) -> bool:
        """Write to the spool in a thread; a canceled caller does not undo the write."""
        if self._engine.spool is None:
            return False
        return await asyncio.shield(asyncio.to_thread(self._engine.keep, *items))

    async def _correct(
        self,
        kind: str,
        customer: str,
        of: str,
        source: str | None,
        data: Mapping[str, object] | None,
    ) -> str:
        item = self._engine.correction(kind, customer, of, source, data)
        if not await self._keep(item):
            await self._run(flows.count(item.body, self._engine.patience))
        return item.target

    async def _settle(self, kind: str, permit: Permit, used: Quantity | None) -> None:
        item = self._engine.settlement(kind, permit, used)
        if not await self._keep(item):
            patience = self._engine.patience
            await self._run(flows.settle(kind, permit.reservation, item.body, patience))

    async def _let_go(self, permit: Permit) -> None:
        """Release on the way out of a failed block, whose own error must not be hidden."""
        try:
            await self.release(permit)
        except ClientError as error:
            _log.warning("%s was not released and expires: %s", permit.reservation, error)

    async def _run(self, flow: Flow[T]) -> T:
        outcome: flows.Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._send(step)

    async def _send(self, call: Call) -> Reply | Silence:
        try:
            response = await self._http.request(
                call.method,
                call.path,
                content=call.body,
                params=call.query or None,
                headers=call.headers,
            )
        except (httpx.TransportError, httpx.DecodingError) as error:
            return engine.silence(error)
        return engine.reply(response)
