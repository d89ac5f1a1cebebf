"""What goes wrong inside a simulated world: lost races, killed runs, two runs at once.

A fault must not change a single amount. Transactions are undone by a serialization failure at
their very end, after all the work, which is where it hurts most; whoever opened one tries again.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final, TypeVar

from convergio.infra.db import Contended, Database, Tx
from convergio.kernel.errors import ConvergioError, Unavailable

_UNDONE: Final = 0.03
_TRIES_MAX: Final = 12

Answer = TypeVar("Answer")


class Killed(Exception):
    """The process that ran the billing is gone."""


class FaultyDatabase(Database):
    """A database of which some transactions lose a race that nobody else ran."""

    def __init__(self, dsn: str, chance: Random) -> None:
        """Begin without faults, so that a world can be set up; `armed` lets them happen."""
        super().__init__(dsn)
        self._chance = chance
        self.armed = False

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """Open one transaction, and now and then undo it at the end. Raises: as its parent."""
        with super().transaction() as tx:
            yield tx
            if self.armed and self._chance.random() < _UNDONE:
                raise Contended("undone by the simulator; try again", code="contended")

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """Read undisturbed: only the comparison does, and it asks once. Raises: as its parent."""
        armed, self.armed = self.armed, False
        try:
            with super().snapshot() as tx:
                yield tx
        finally:
            self.armed = armed


def patiently(work: Callable[[], Answer]) -> Answer:
    """Do something again for as long as it only lost a race. Raises: what it raises."""
    for _ in range(_TRIES_MAX):
        try:
            return work()
        except Unavailable as error:
            if error.code != "contended":
                raise
    return work()


def at_once(work: Callable[[], object]) -> None:
    """Do the same thing in two threads at once. Raises: what one of them raised."""
    raised: list[ConvergioError] = []

    def do() -> None:
        try:
            patiently(work)
        except ConvergioError as error:
            raised.append(error)

    threads = [threading.Thread(target=do) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for error in raised:
        raise error


def kill(_: int) -> None:
    """Be the progress callback of a run that dies after its first batch. Raises: Killed."""
    raise Killed
