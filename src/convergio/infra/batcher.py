"""Group commit: requests that arrive together share one transaction, each gets its own answer.

An asyncio front hands items to one writer thread. While the writer commits one batch, the next
one gathers, so a busy server makes large batches without waiting and an idle one answers at once.
The queue is bounded: beyond it a caller is told to come back (Unavailable), never kept waiting.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from convergio.kernel.errors import Unavailable, require

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Waiting(Generic[Item, Answer]):
    """One caller's items and the future that will hold their answers."""

    __slots__ = ("future", "items", "loop")

    def __init__(
        self,
        items: Sequence[Item],
        future: "asyncio.Future[list[Answer]]",
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.items = items
        self.future = future
        self.loop = loop


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
        self._ready = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def submit(self, items: Sequence[Item]) -> list[Answer]:
        """Return the answers to these items, after their commit.

        Raises: Unavailable when the queue is full or the server is stopping: nothing was done.
        """
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Answer] = _Waiting(items, loop.create_future(), loop)
        with self._ready:
            if self._closing or self._queued + len(items) > self._queue_max:
                detail = "the server is busy; send the same request again in a second"
                raise Unavailable(detail, code="overloaded")
            self._queue.append(waiting)
            self._queued += len(items)
            self._ready.notify()
        return await waiting.future

    def close(self) -> None:
        """Work off what is queued, then stop the thread."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._queue and not self._closing:
                    self._ready.wait()
                if not self._queue:
                    return
                batch = self._take()
            self._answer(batch)

    def _take(self) -> list[_Waiting[Item, Answer]]:
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
            self._wake(batch, lambda waiting: waiting.future.set_exception(failure))
            return
        start = 0
        parts = {}
        for waiting in batch:
            parts[id(waiting)] = answers[start : start + len(waiting.items)]
            start += len(waiting.items)
        self._wake(batch, lambda waiting: waiting.future.set_result(parts[id(waiting)]))

    def _wake(
        self,
        batch: list[_Waiting[Item, Answer]],
        settle: Callable[[_Waiting[Item, Answer]], None],
    ) -> None:
        """Settle the futures in their loop, with one call a loop; a caller may have gone."""

        def settle_all(group: list[_Waiting[Item, Answer]]) -> None:
            for waiting in group:
                if not waiting.future.done():
                    settle(waiting)

        groups: dict[int, list[_Waiting[Item, Answer]]] = {}
        for waiting in batch:
            groups.setdefault(id(waiting.loop), []).append(waiting)
        for group in groups.values():
            with suppress(RuntimeError):  # its loop has closed: nobody waits there any more
                group[0].loop.call_soon_threadsafe(settle_all, group)
