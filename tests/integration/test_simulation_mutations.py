"""A wrong engine is found: each mutation of it makes one of a few seeds differ from the oracle."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from convergio.billing import owing, rules
from convergio.billing.model import Billed, Charge, ChargeKey, Kind, Line
from convergio.infra import postgres
from convergio.kernel import money
from convergio.kernel.periods import Calendar, Period
from convergio.rating import rules as rating
from convergio.simulation import seeds
from convergio.simulation.seeds import Size
from convergio.subscriptions import rules as agreements
from convergio.subscriptions import steps
from convergio.subscriptions.model import BillingView, ChangeState
from tests.fakes.worlds import check_found, ground

SEEDS_MAX = 6
SIZE = Size(customers=8, months=5)
UNIT = 10**9  # quantities are counted in billionths
DAY = timedelta(days=1)
QUEUED = ChangeState.QUEUED

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


def an_add_on_is_charged_by_whole_days(patch: Patch) -> None:
    share = owing.Stretch.share

    def whole(part: Any) -> Fraction:  # noqa: ANN401 - a stretch
        exact: Fraction = share.__get__(part)
        if part.item.add_on_key is None:
            return exact
        full, served = part.period, part.served - part.start
        return min(Fraction(-(-served // DAY), (full.end - full.start) // DAY), Fraction(1))

    patch.setattr(owing.Stretch, "share", property(whole))


def a_ramps_step_begins_a_day_late(patch: Patch) -> None:
    change_to = steps.change_to

    def later(*args: Any, **more: Any) -> Any:  # noqa: ANN401 - handed on
        made = change_to(*args, **more)
        return changed(made, effective_at=made.effective_at + DAY) if made.state == QUEUED else made

    patch.setattr(steps, "change_to", later)


def late_usage_of_a_value_is_dropped(patch: Patch) -> None:
    settle = rules.settle

    def deaf(
        view: BillingView,
        prices: owing.Prices,
        charges: Mapping[ChargeKey, Charge],
        billed: Mapping[ChargeKey, Billed],
        **more: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - handed on
        last, heard = more["last_boundary"], dict(charges)
        for key, charge in charges.items():
            if key.dimensions and last is not None and charge.due_at <= last:
                known = billed[key].amount if key in billed else 0
                heard[key] = changed(charge, amount=changed(charge.amount, minor=known))
        return settle(view, prices, heard, billed, **more)

    patch.setattr(rules, "settle", deaf)


def a_first_part_is_charged_in_full(patch: Patch) -> None:
    share = owing.Stretch.share

    def full(part: Any) -> Fraction:  # noqa: ANN401 - a stretch
        exact: Fraction = share.__get__(part)
        is_first = part.period.start < part.subscription.started_at == part.start
        return Fraction(1) if is_first else exact

    patch.setattr(owing.Stretch, "share", property(full))


def who_migrates_does_so_at_once(patch: Patch) -> None:
    patch.setattr(agreements, "common_boundary", lambda *asked: asked[-1])


MUTATIONS: list[Callable[[Patch], None]] = [
    tiers_end_one_unit_early,
    halves_go_to_even,
    a_period_holds_its_own_end,
    credit_is_taken_from_the_list_price,
    days_are_counted_instead_of_seconds,
    an_allowance_is_rounded_down,
    an_add_on_is_charged_by_whole_days,
    a_ramps_step_begins_a_day_late,
    late_usage_of_a_value_is_dropped,
    a_first_part_is_charged_in_full,
    who_migrates_does_so_at_once,
]


@pytest.mark.parametrize("seed", range(1, SEEDS_MAX + 1))
def test_the_engine_as_it_is_gives_the_same_seeds_nothing_to_find(
    seed: int, server: postgres.Embedded, template: str, tmp_path: Path
) -> None:
    lived = seeds.live(ground(server, template, tmp_path), seed, SIZE)
    assert [str(one) for one in lived.found] == []


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
    check_found(here, SEEDS_MAX, SIZE, name=mutate.__name__, people=False)
