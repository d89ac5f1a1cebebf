"""Tasks shared out among real processes: every one is done, whoever dies on the way."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from convergio.infra import processes
from convergio.kernel.errors import Fault, Invalid, Unavailable


@contextmanager
def doubling() -> Iterator[Callable[[int], tuple[int, int]]]:
    yield lambda task: (2 * task, os.getpid())


@contextmanager
def dying(once: Path | None) -> Iterator[Callable[[int], int]]:
    """Die at 3: the first time only where a file keeps the memory of it."""

    def work(task: int) -> int:
        if task == 3 and (once is None or not once.exists()):
            if once is not None:
                once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * task

    yield work


@contextmanager
def refusing(error: type[Invalid] | type[Unavailable]) -> Iterator[Callable[[int], int]]:
    def work(_: int) -> int:
        raise error("it cannot be done", code="odd")

    yield work


def test_every_task_is_done_once_and_the_work_is_shared() -> None:
    found = dict(processes.share_out(doubling, deque(range(50)), workers=2))
    assert {task: result for task, (result, _) in found.items()} == {n: 2 * n for n in range(50)}
    workers = {worker for _, worker in found.values()}
    assert len(workers) == 2
    assert os.getpid() not in workers


def test_whoever_takes_results_may_add_tasks() -> None:
    tasks, seen = deque([1]), []
    for task, (result, _) in processes.share_out(doubling, tasks, workers=2):
        seen.append(task)
        if result < 20:
            tasks.append(result)
    assert seen == [1, 2, 4, 8, 16]


def test_the_task_of_a_killed_worker_is_done_by_another(tmp_path: Path) -> None:
    opened = partial(dying, tmp_path / "died")
    found = dict(processes.share_out(opened, deque(range(8)), workers=2))
    assert (tmp_path / "died").exists()
    assert found == {n: 2 * n for n in range(8)}


def test_when_every_worker_dies_the_rest_is_refused() -> None:
    tasks = deque(range(8))
    told = processes.share_out(partial(dying, None), tasks, workers=2)
    with pytest.raises(Unavailable, match="every worker process died"):
        assert dict(told) is None, "3 kills whoever does it"
    assert 3 in tasks


@pytest.mark.parametrize(("raised", "heard"), [(Unavailable, Unavailable), (Invalid, Fault)])
def test_what_a_worker_cannot_do_is_told(raised: type[Invalid], heard: type[Fault]) -> None:
    with pytest.raises(heard, match="it cannot be done") as told:
        list(processes.share_out(partial(refusing, raised), deque([1]), workers=2))
    assert told.value.code == "odd"
