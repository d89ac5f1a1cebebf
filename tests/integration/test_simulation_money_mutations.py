"""Wrong discounts, taxes and credit are found, as other wrong engines are."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from convergio.billing import bearing
from convergio.billing.model import CreditLine
from convergio.discounts import rules as discounting
from convergio.infra import postgres
from convergio.kernel import money
from convergio.metering import allowance
from convergio.metering.model import Credit
from convergio.rating import taxing
from convergio.simulation.seeds import Size
from tests.fakes.worlds import check_found, ground

SEEDS_MAX = 12
SIZE = Size(customers=8, months=5)

Patch = pytest.MonkeyPatch


def a_remainder_goes_to_the_last_line(patch: Patch) -> None:
    def careless(whole: money.Money, weights: Sequence[int]) -> list[money.Money]:
        floors = [whole.minor * weight // sum(weights) for weight in weights]
        floors[-1] += whole.minor - sum(floors)
        return [money.Money(part, whole.currency) for part in floors]

    patch.setattr(discounting, "allocate", careless)


def tax_is_rounded_line_by_line(patch: Patch) -> None:
    def each(lines: Iterable[taxing.Priced]) -> list[taxing.TaxRow]:
        rows: dict[taxing.GroupKey, taxing.TaxRow] = {}
        for line in lines:
            (row,) = tax_groups([line])
            before = rows.get(row.key)
            if before is not None:
                row = row._replace(net=row.net + before.net, tax=row.tax + before.tax)
            rows[row.key] = row
        return list(rows.values())

    tax_groups = taxing.tax_groups
    patch.setattr(bearing, "tax_groups", each)


def the_tax_of_a_credit_is_on_the_list_price(patch: Patch) -> None:
    take = bearing.Credited.take

    def listed(
        credited: bearing.Credited, invoice_id: UUID, lines: Iterable[CreditLine]
    ) -> tuple[taxing.TaxRow, ...]:
        whole = [replace(one, bearing=one.bearing._replace(discount=0)) for one in lines]
        return take(credited, invoice_id, whole)

    patch.setattr(bearing.Credited, "take", listed)


def a_credit_rounds_its_tax_alone(patch: Patch) -> None:
    take = bearing.Credited.take

    def alone(
        credited: bearing.Credited, invoice_id: UUID, lines: Iterable[CreditLine]
    ) -> tuple[taxing.TaxRow, ...]:
        credited.of.clear()
        return take(credited, invoice_id, lines)

    patch.setattr(bearing.Credited, "take", alone)


def a_coupon_is_pinned_one_period_late(patch: Patch) -> None:
    span_of = discounting.span_of

    def later(*args: Any, first: int) -> Any:  # noqa: ANN401 - handed on
        return span_of(*args, first=first + 1)

    patch.setattr(discounting, "span_of", later)


def expired_credit_is_drawn(patch: Patch) -> None:
    patch.setattr(discounting, "_in_time", lambda _grant, _line: True)


def prepaid_units_are_drawn_after_their_end(patch: Patch) -> None:
    def lasting(credits_: Sequence[Credit], moment: datetime) -> list[Credit]:
        return [one for one in credits_ if one.starts_at <= moment]

    patch.setattr(allowance, "active_in", lasting)


def usage_is_taxed_at_the_rate_of_its_first_day(patch: Patch) -> None:
    patch.setattr(bearing, "tax_instant", lambda line, *_, **__: line.key.period_start)


MUTATIONS: list[Callable[[Patch], None]] = [
    a_remainder_goes_to_the_last_line,
    tax_is_rounded_line_by_line,
    the_tax_of_a_credit_is_on_the_list_price,
    a_credit_rounds_its_tax_alone,
    a_coupon_is_pinned_one_period_late,
    expired_credit_is_drawn,
    prepaid_units_are_drawn_after_their_end,
    usage_is_taxed_at_the_rate_of_its_first_day,
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
    check_found(here, SEEDS_MAX, SIZE, name=mutate.__name__, people=True)
