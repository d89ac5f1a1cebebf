"""A wrong engine is found: each mutation of it makes one of a few seeds differ from the oracle."""

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from convergio.billing import owing, rules
from convergio.billing.model import Billed, Charge, Kind, Line
from convergio.infra import postgres
from convergio.kernel import money
from convergio.kernel.periods import Calendar, Period
from convergio.rating import rules as rating
from convergio.simulation import seeds
from convergio.simulation.seeds import Size
from convergio.subscriptions.model import BillingView
from tests.fakes.worlds import ground

SEEDS_MAX = 6
SIZE = Size(customers=8, months=5)
UNIT = 10**9  # quantities are counted in billionths
DAY = timedelta(days=1)

Patch = pytest.MonkeyPatch


def tiers_end_one_unit_early(patch: Patch) -> None:
    band = rating._band  # noqa: SLF001 - what is mutated

    def shorter(*args: Any) -> Any:  # noqa: ANN401 - whatever the rule takes
        made = band(*args)
        return made if made.end is None else changed(made, end=made.end - UNIT)

    patch.setattr(rating, "_band", shorter)


def changed(value: Any, **fields: Any) -> Any:  # noqa: ANN401 - a tuple or a dataclass
    return value._replace(**fields) if hasattr(value, "_replace") else replace(value, **fields)


def halves_go_to_even(patch: Patch) -> None:
    patch.setattr(money, "_half_away", lambda value: round(Fraction(value)))


def a_period_holds_its_own_end(patch: Patch) -> None:
    number_at = Calendar.number_at

    def inclusive(calendar: Calendar, instant: datetime) -> int:
        number = number_at(calendar, instant)
        return number - 1 if number > 0 and calendar.boundary(number) == instant else number

    patch.setattr(Calendar, "number_at", inclusive)


def credit_is_taken_from_the_list_price(patch: Patch) -> None:
    settle, amendment = rules.settle, rules._amendment  # noqa: SLF001 - what is mutated
    known: list[owing.Prices] = []

    def seen(
        view: BillingView,
        prices: owing.Prices,
        *args: Any,  # noqa: ANN401 - handed on
        **more: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - handed on
        known[:] = [prices]
        return settle(view, prices, *args, **more)

    def listed(charge: Charge, billed: Billed | None) -> Line:
        line = amendment(charge, billed)
        if charge.key.kind != Kind.FIXED or line.amount.minor >= 0:
            return line
        whole, _ = known[0].rate(known[0].get(charge.price_id), charge.quantity)
        taken: Line = changed(line, amount=charge.amount - whole)
        return taken

    patch.setattr(rules, "settle", seen)
    patch.setattr(rules, "_amendment", listed)


def days_are_counted_instead_of_seconds(patch: Patch) -> None:
    def by_days(full: Period, service: Period) -> Fraction:
        days = Fraction((service.end - service.start) // DAY, (full.end - full.start) // DAY)
        return min(days, Fraction(1))

    patch.setattr(rating, "proration", by_days)
    patch.setattr(owing, "proration", by_days)


def an_allowance_is_rounded_down(patch: Patch) -> None:
    allowance = rating.allowance

    def lower(*args: Any) -> Any:  # noqa: ANN401 - handed on
        return max(allowance(*args) - 1, 0)

    patch.setattr(owing, "allowance", lower)


MUTATIONS: list[Callable[[Patch], None]] = [
    tiers_end_one_unit_early,
    halves_go_to_even,
    a_period_holds_its_own_end,
    credit_is_taken_from_the_list_price,
    days_are_counted_instead_of_seconds,
    an_allowance_is_rounded_down,
]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_few_seeds_find_it_when(
    mutate: Callable[[Patch], None],
    server: postgres.Embedded,
    template: str,
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    here = ground(server, template, tmp_path)
    mutate(monkeypatch)
    for seed in range(1, SEEDS_MAX + 1):
        lived = seeds.live(here, seed, SIZE)
        if lived.found:
            sys.stdout.write(f"{mutate.__name__}: seed {seed}, {lived.found[0]}\n")
            return
    pytest.fail(f"{SEEDS_MAX} seeds did not find it when {mutate.__name__.replace('_', ' ')}")
