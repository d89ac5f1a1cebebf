"""Live a seed and compare; where product and oracle differ, make the script small.

Each world has a database of its own, a copy of one that is migrated and empty, so that a seed
lives the same life whatever was lived before it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Final

from convergio.billing import actions as billing
from convergio.infra import scratch
from convergio.infra.clock import VirtualClock, stopwatch
from convergio.infra.db import Tx
from convergio.infra.settings import Settings
from convergio.kernel.errors import Difference
from convergio.ledger import actions as ledger
from convergio.metering import actions as metering
from convergio.metering.ingest import Ingestor
from convergio.payments import checking
from convergio.payments.gateways.sandbox import Sandbox
from convergio.simulation import drawing
from convergio.simulation.comparing import Comparison, Found
from convergio.simulation.faults import FaultyDatabase
from convergio.simulation.playing import Played, Stage
from convergio.simulation.script import Script, Step
from convergio.simulation.shrinking import shrunk
from convergio.subscriptions import actions as subscriptions
from convergio.wiring import App, opened

_BEFORE: Final = timedelta(days=1)
_CHECKS: Final = {
    "usage": metering.verify,
    "subscriptions": subscriptions.verify,
    "ledger": ledger.verify,
    "invoices": billing.verify,
    "payments": checking.verify,
}


@dataclass(frozen=True, slots=True)
class Ground:
    """Where worlds are made: beside `dsn`, as copies of the empty database at `url`."""

    settings: Settings
    dsn: str
    url: str
    label: str


@dataclass(frozen=True, slots=True)
class Size:
    """How large a world is, and whether things go wrong in it."""

    customers: int
    months: int
    faults: bool = False


@dataclass(frozen=True, slots=True)
class Lived:
    """What came of a seed. `script` is the shrunk one where there are differences."""

    seed: int
    steps: int
    seconds: float
    found: tuple[Found, ...]
    tally: Mapping[str, int] = field(default_factory=dict)
    script: tuple[Step, ...] = ()


def live(
    ground: Ground,
    seed: int,
    size: Size,
    *,
    shrink_seconds: float = 0.0,
    progress: Callable[[int], None] = lambda _: None,
) -> Lived:
    """Live a seed's world; on a difference shrink its script for as many seconds at most."""
    begun = stopwatch()
    script = drawing.drawn(seed, customers=size.customers, months=size.months)
    found, tally = played(ground, script, seed=seed, faults=size.faults, progress=progress)
    took = round(stopwatch() - begun, 2)
    small: tuple[Step, ...] = ()
    if found and shrink_seconds:
        end = stopwatch() + shrink_seconds
        who = found[0].who

        def fails(steps: Sequence[Step]) -> bool:
            again, _ = played(ground, script.only(steps), seed=seed, faults=size.faults)
            return any(one.who == who for one in again)

        small = shrunk(script.steps, who, fails=fails, may_go_on=lambda: stopwatch() < end)
    return Lived(seed, len(script.steps), took, tuple(found), tally, small)


def played(
    ground: Ground,
    script: Script,
    *,
    seed: int = 0,
    faults: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Found], Counter[str]]:
    """Play a script in a world of its own; return the differences, and what was counted."""
    clock = VirtualClock(script.steps[0].at - _BEFORE)
    with _world(ground, clock, Random(seed) if faults else None) as product:
        stage = Stage(product, clock, script, chance=Random(seed) if faults else None)
        comparison = Comparison(product)
        found: list[Found] = []

        def checked(now: Played) -> bool:
            found[:] = comparison.differences(now, now=clock.now())
            return not found

        try:
            stage.play(checked, progress)
        except Exception as error:  # noqa: BLE001 - whatever the product breaks on is a difference
            what = f"{type(error).__name__}: {error}"
            found.append(Found("-", Difference("the product", "no error", what)))
        if not found and script.steps[-1].verb == "run":
            found += comparison.totals(stage.played, now=clock.now())
        if not found:
            with product.database.snapshot() as tx:
                found += _verified(tx)
    return found, stage.played.tally


def _verified(tx: Tx) -> list[Found]:
    return [Found("-", one) for check in _CHECKS.values() for one in check(tx)]


@contextmanager
def _world(ground: Ground, clock: VirtualClock, chance: Random | None) -> Iterator[App]:
    with (
        scratch.copied(ground.dsn, ground.url, ground.label) as url,
        opened(ground.settings, clock=clock, url=url, migrated=True) as product,
    ):
        if chance is None:
            yield product
            return
        with FaultyDatabase(url, chance) as database:
            yield replace(
                product,
                database=database,
                gateways={"sandbox": Sandbox(product.database, clock)},
                ingestor=Ingestor(database, back=None),
            )
