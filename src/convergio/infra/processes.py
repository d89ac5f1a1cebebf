"""Share tasks out among processes, so that the death of any of them costs only time.

A task is with one worker at a time and comes back to the others when its worker dies. Workers are
spawned, not forked: a fork would share the parent's database connections. They end when the
parent does, because then nothing is at the other end of their pipe.
"""

import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar, cast

from convergio.kernel.errors import ConvergioError, Fault, Unavailable

Task = TypeVar("Task")
Result = TypeVar("Result")
Opened = Callable[[], AbstractContextManager[Callable[[Task], Result]]]


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a worker could not do its task, for the parent to raise: errors do not all travel."""

    detail: str
    code: str
    is_passing: bool

    def error(self) -> ConvergioError:
        kind = Unavailable if self.is_passing else Fault
        return kind(self.detail, code=self.code)


def share_out(
    opened: Opened[Task, Result], tasks: deque[Task], *, workers: int
) -> Iterator[tuple[Task, Result]]:
    """Yield every task with its result, in the order in which they are done.

    Each worker enters `opened()` (which must be picklable) once and calls what it gets with a task
    after the other, from the left of `tasks`; whoever takes the results may add more. Raises: what
    a worker raised, and Unavailable when no worker is left.
    """
    crew = [_Worker[Task, Result](opened) for _ in range(workers)]
    try:
        while tasks or any(one.task is not None for one in crew):
            for one in crew:
                if one.task is None and tasks:
                    one.give(tasks.popleft())
            ready = wait([one.pipe for one in crew if one.task is not None])
            for one in [one for one in crew if one.pipe in ready]:
                task = cast("Task", one.task)
                try:
                    yield task, one.take()
                except (EOFError, OSError):
                    crew.remove(one)
                    tasks.appendleft(task)
            if not crew:
                detail = "every worker process died; what they finished stays, run it again"
                raise Unavailable(detail, code="no_worker")
    finally:
        for one in crew:
            one.end()


class _Worker(Generic[Task, Result]):
    """One process, its pipe, and the task that it is at."""

    def __init__(self, opened: Opened[Task, Result]) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.task: Task | None = None
        self._process: BaseProcess = context.Process(
            target=_work, args=(theirs, opened), daemon=True
        )
        self._process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        self.task = task
        with suppress(ConnectionError):  # a dead one is found by reading from it
            self.pipe.send(task)

    def take(self) -> Result:
        answer = self.pipe.recv()
        self.task = None
        if isinstance(answer, _Failed):
            raise answer.error()
        return cast("Result", answer)

    def end(self) -> None:
        self.pipe.close()
        self._process.join()


def _work(pipe: Connection, opened: Opened[Task, Result]) -> None:
    """Do what comes through the pipe until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the pipe
    with suppress(EOFError, ConnectionError):
        try:
            with opened() as work:
                while True:
                    pipe.send(work(pipe.recv()))
        except ConvergioError as error:
            pipe.send(_Failed(error.detail, error.code, isinstance(error, Unavailable)))
