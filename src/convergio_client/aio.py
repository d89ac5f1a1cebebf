"""The awaiting client: the blocking one's twin, for asyncio.

What is not I/O is shared (`engine`, `flows`, `protocol`); the spool is a local file and is written
in a thread, its delivery is the same background thread as the blocking client's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx

from convergio_client import engine, flows, protocol
from convergio_client.engine import (
    CLOSE_SECONDS,
    PATIENCE_SECONDS,
    SOURCE,
    TIMEOUT_SECONDS,
    Engine,
)
from convergio_client.errors import ClientError
from convergio_client.flows import Flow, Pause
from convergio_client.model import (
    Backlog,
    OnRejected,
    Permit,
    Quantity,
    Quota,
    Rejection,
    Usage,
)
from convergio_client.protocol import Call, Reply, Silence
from convergio_client.spool import Item, Spool

T = TypeVar("T")
_log: Final = logging.getLogger("convergio_client")


class AsyncConvergio:
    """A client for one event loop. Make it in the process that uses it, after any fork."""

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
        transport: httpx.AsyncBaseTransport | None = None,
        spool_transport: httpx.BaseTransport | None = None,
    ) -> None:
        """As `Convergio`; `on_rejected` is called from the spool's thread. Raises: Invalid."""
        self._engine = Engine(
            url,
            key,
            source=source,
            spool=spool,
            timeout_seconds=timeout_seconds,
            patience_seconds=patience_seconds,
            on_rejected=on_rejected,
            transport=spool_transport,
        )
        self._http = httpx.AsyncClient(
            base_url=self._engine.url,
            headers=self._engine.headers(),
            timeout=timeout_seconds,
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

    async def reserve(self, customer: str, meter: str, quantity: Quantity = 1) -> Permit:
        """Hold quota until `commit`, `release` or its expiry. Raises: Denied, Unavailable."""
        return await self._run(flows.reserve(customer, meter, quantity, self._engine.patience))

    async def commit(self, permit: Permit, used: Quantity | None = None) -> None:
        """Count what was really used; twice is once. With a spool, a durable intent.

        Raises: Invalid, SpoolFull, SpoolBroken; without a spool Rejected, Unavailable.
        """
        await self._settle("commit", permit, used)

    async def release(self, permit: Permit) -> None:
        """Give back what is held; twice is once. Raises: as `commit`."""
        await self._settle("release", permit, None)

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
    ) -> list[Usage]:
        """Return usage in buckets of local time, right to the last committed event.

        Raises: Invalid, Rejected, Unavailable.
        """
        call = protocol.ask_usage(
            meter, customer=customer, by=by, start=start, end=end, time_zone=time_zone
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

    async def _keep(self, item: Item) -> bool:
        """Write to the spool in a thread; a canceled caller does not undo the write."""
        if self._engine.spool is None:
            return False
        return await asyncio.shield(asyncio.to_thread(self._engine.keep, item))

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
                call.method, call.path, content=call.body, params=call.query or None
            )
        except (httpx.TransportError, httpx.DecodingError) as error:
            return engine.silence(error)
        return engine.reply(response)
