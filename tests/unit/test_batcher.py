"""Group commit: answers reach whoever asked, in order, and nobody is kept waiting for ever."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from convergio.infra.batcher import Batcher
from convergio.kernel.errors import Fault, Unavailable


class Gate:
    """Work that waits until it is let through, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, items: list[int]) -> list[str]:
        self.batches.append(items)
        self.begun.release()
        assert self.open.wait(10)
        return [f"<{item}>" for item in items]


@contextmanager
def batcher(
    gate: Gate, *, batch_max: int = 10, queue_max: int = 100
) -> Iterator[Batcher[int, str]]:
    """A batcher around the gate; opened and closed at the end."""
    made: Batcher[int, str] = Batcher(gate, batch_max=batch_max, queue_max=queue_max, name="test")
    try:
        yield made
    finally:
        gate.open.set()
        made.close()


async def begun(gate: Gate) -> None:
    """Wait until the writer holds a batch."""
    assert await asyncio.to_thread(gate.begun.acquire, timeout=10)


def test_what_gathers_while_the_writer_works_is_one_batch_in_order_of_arrival() -> None:
    async def scenario() -> None:
        gate = Gate()
        with batcher(gate) as asked:
            first = asyncio.create_task(asked.submit([0]))
            await begun(gate)
            rest = [asyncio.create_task(asked.submit([n, n + 100])) for n in (1, 2, 3)]
            await asyncio.sleep(0)
            gate.open.set()
            assert await first == ["<0>"]
            assert await asyncio.gather(*rest) == [[f"<{n}>", f"<{n + 100}>"] for n in (1, 2, 3)]
        assert gate.batches == [[0], [1, 101, 2, 102, 3, 103]]

    asyncio.run(scenario())


def test_a_batch_takes_whole_requests_up_to_its_size() -> None:
    async def scenario() -> None:
        gate = Gate()
        with batcher(gate, batch_max=5) as asked:
            first = asyncio.create_task(asked.submit([0]))
            await begun(gate)
            rest = [asyncio.create_task(asked.submit([n] * 3)) for n in (1, 2)]
            large = asyncio.create_task(asked.submit([9] * 20))
            await asyncio.sleep(0)
            gate.open.set()
            await asyncio.gather(first, *rest, large)
        assert gate.batches == [[0], [1] * 3, [2] * 3, [9] * 20]

    asyncio.run(scenario())


def test_beyond_the_queue_a_caller_is_told_to_come_back_and_nothing_of_theirs_is_done() -> None:
    async def scenario() -> None:
        gate = Gate()
        with batcher(gate, queue_max=4) as asked:
            first = asyncio.create_task(asked.submit([0]))
            await begun(gate)
            second = asyncio.create_task(asked.submit([1, 2, 3]))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable) as caught:
                await asked.submit([4, 5])
            assert caught.value.code == "overloaded"
            third = asyncio.create_task(asked.submit([6]))
            await asyncio.sleep(0)
            gate.open.set()
            await asyncio.gather(first, second, third)
            assert await asked.submit([7]) == ["<7>"], "there is room again"
        assert [item for batch in gate.batches for item in batch] == [0, 1, 2, 3, 6, 7]

    asyncio.run(scenario())


def test_who_sends_more_than_the_queue_holds_is_taken_when_nobody_waits() -> None:
    async def scenario() -> None:
        gate = Gate()
        with batcher(gate, batch_max=2, queue_max=2) as asked:
            first = asyncio.create_task(asked.submit([0, 1, 2]))
            await begun(gate)
            waiting = asyncio.create_task(asked.submit([3]))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await asked.submit([4, 5])
            gate.open.set()
            assert await first == ["<0>", "<1>", "<2>"]
            await waiting

    asyncio.run(scenario())


def test_an_error_reaches_every_caller_of_its_batch_and_no_other() -> None:
    def work(items: list[int]) -> list[int]:
        if 13 in items:
            raise ZeroDivisionError
        return items

    async def scenario() -> None:
        made: Batcher[int, int] = Batcher(work, batch_max=10, queue_max=100, name="test")
        found = await asyncio.gather(made.submit([13]), made.submit([1]), return_exceptions=True)
        assert all(isinstance(one, ZeroDivisionError) or one == [1] for one in found)
        assert isinstance(found[0], ZeroDivisionError)
        assert await made.submit([2]) == [2], "the writer lives on"
        made.close()

    asyncio.run(scenario())


def test_a_lost_answer_is_a_fault_and_not_somebody_else_s_answer() -> None:
    async def scenario() -> None:
        made: Batcher[int, int] = Batcher(
            lambda items: items[:-1], batch_max=10, queue_max=100, name="test"
        )
        with pytest.raises(Fault):
            await made.submit([1, 2])
        made.close()

    asyncio.run(scenario())


def test_closing_works_off_what_is_queued_and_refuses_what_comes_after() -> None:
    async def scenario() -> None:
        gate = Gate()
        with batcher(gate) as asked:
            waiting = [asyncio.create_task(asked.submit([n])) for n in range(5)]
            await begun(gate)
            closing = asyncio.create_task(asyncio.to_thread(asked.close))
            await asyncio.sleep(0.01)
            with pytest.raises(Unavailable):
                await asked.submit([9])
            gate.open.set()
            await closing
            assert await asyncio.gather(*waiting) == [[f"<{n}>"] for n in range(5)]

    asyncio.run(scenario())


def test_a_caller_who_went_away_hurts_nobody() -> None:
    async def scenario() -> None:
        gate = Gate()
        with batcher(gate) as asked:
            gone = asyncio.create_task(asked.submit([1]))
            await begun(gate)
            stays = asyncio.create_task(asked.submit([2]))
            await asyncio.sleep(0)
            gone.cancel()
            gate.open.set()
            assert await stays == ["<2>"]

    asyncio.run(scenario())


def test_a_loop_that_ended_does_not_stop_the_writer() -> None:
    gate = Gate()
    with batcher(gate) as asked:

        async def leave() -> None:
            waiting = asyncio.create_task(asked.submit([1]))
            await begun(gate)
            waiting.cancel()

        asyncio.run(leave())
        gate.open.set()
        assert asyncio.run(asked.submit([2])) == ["<2>"]
