"""Group commit: requests that arrive together share one transaction, each gets its own answer.

An asyncio front hands items to one writer thread. While the writer commits one batch, the next
one gathers, so a busy server makes large batches without waiting and an idle one answers at once.
The writer is woken once for all that the loop has read by then, not once a request.
The queue is bounded: beyond it a caller is told to come back (Unavailable), never kept waiting.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Generic, NamedTuple, TypeVar

from convergio.kernel.errors import Unavailable, require

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Waiting(NamedTuple, Generic[Item, Answer]):
    """One caller's items and the future that will hold their answers."""

    items: Sequence[Item]
    future: "asyncio.Future[list[Answer]]"
    loop: asyncio.AbstractEventLoop


class Batcher(Generic[Item, Answer]):
    """Collect items from many callers and work them off in batches, in one thread."""

    def __init__(
        self,
        work: Callable[[list[Item]], list[Answer]],
        *,
        batch_max: int,
        queue_max: int,
        name: str,
    ) -> None:
        """`work` answers a batch in order; it runs in the writer thread, with its transaction."""
        self._work = work
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._queue: deque[_Waiting[Item, Answer]] = deque()
        self._queued = 0
        self._closing = False
        self._rung = False
        self._lock = threading.Lock()
        self._bell = threading.Lock()  # held while nothing is to be done
        self._bell.acquire()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def submit(self, items: Sequence[Item]) -> list[Answer]:
        """Return the answers to these items, after their commit.

        An empty queue takes what is larger than itself, or it would never be taken. Raises:
        Unavailable when the queue is full or the server is stopping: nothing was done.
        """
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Answer] = _Waiting(items, loop.create_future(), loop)
        with self._lock:
            is_full = self._queued > 0 and self._queued + len(items) > self._queue_max
            if self._closing or is_full:
                detail = "the server is busy; send the same request again in a second"
                raise Unavailable(detail, code="overloaded")
            self._queue.append(waiting)
            self._queued += len(items)
            is_first, self._rung = not self._rung, True
        if is_first:
            loop.call_soon(self._ring)  # once the loop has heard the others
        return await waiting.future

    def close(self) -> None:
        """Work off what is queued, then stop the thread."""
        with self._lock:
            self._closing = True
        self._ring()
        self._thread.join()

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it is ringing
            self._bell.release()

    def _run(self) -> None:
        while True:
            self._bell.acquire()
            with self._lock:  # or a caller who looks now could leave it set, and nobody rings
                self._rung = False
            closing = self._closing  # nobody joins the queue after that
            while batch := self._take():
                self._answer(batch)
            if closing:
                return

    def _take(self) -> list[_Waiting[Item, Answer]]:
        with self._lock:
            if not self._queue:
                return []
            batch = [self._queue.popleft()]
            size = len(batch[0].items)
            while self._queue and size + len(self._queue[0].items) <= self._batch_max:
                batch.append(self._queue.popleft())
                size += len(batch[-1].items)
            self._queued -= size
        return batch

    def _answer(self, batch: list[_Waiting[Item, Answer]]) -> None:
        items = [item for waiting in batch for item in waiting.items]
        try:
            answers = self._work(items)
            require(len(answers) == len(items), "a batch has an answer for every item")
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            failure = error  # `error` itself is gone when the loop gets to it
            for loop, group in groupby(batch, _loop):
                _settle(loop, [(one.future, failure) for one in group])
            return
        start = 0
        for loop, group in groupby(batch, _loop):
            told = []
            for waiting in group:
                end = start + len(waiting.items)
                told.append((waiting.future, answers[start:end]))
                start = end
            _settle(loop, told)


def _loop(waiting: _Waiting[Item, Answer]) -> asyncio.AbstractEventLoop:
    return waiting.loop


_Told = Sequence[tuple["asyncio.Future[list[Answer]]", list[Answer] | Exception]]


def _settle(loop: asyncio.AbstractEventLoop, told: _Told[Answer]) -> None:
    """Settle futures in their loop, with one call for all of them."""
    with suppress(RuntimeError):  # it has closed: nobody waits there any more
        loop.call_soon_threadsafe(_settle_all, told)


def _settle_all(told: _Told[Answer]) -> None:
    for future, answer in told:
        if future.done():  # the caller has gone
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
