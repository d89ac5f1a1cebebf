"""A reduction that takes back from several lines has its quantity once."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from convergio.billing import crediting
from convergio.billing.model import ChargeKey, Creditable, Draft, Kind, Line
from convergio.kernel.money import Money

WHO, ITEM = UUID(int=1), UUID(int=2)
START, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC)


def reduction(kind: Kind, quantity: str) -> list[Line]:
    key = ChargeKey(ITEM, START, kind, "")
    rows = [
        Creditable(WHO, UUID(int=9), number, ITEM, START, kind, "", "Usage", "usd", amount)
        for number, amount in ((1, 54), (2, 98))
    ]
    amount = Money(-120, "usd")
    line = Line(
        UUID(int=3), key, END, UUID(int=4), "credit", "Usage", Decimal(quantity), amount, "{}"
    )
    _, below = crediting.attributed(Draft(WHO, END, (line,), amount), crediting.Left(rows))
    return below


def test_usage_that_is_taken_back_from_two_lines_is_taken_back_once() -> None:
    below = reduction(Kind.USAGE, "-14.5")
    assert [line.amount.minor for line in below] == [-54, -66]
    assert sum(line.quantity for line in below) == Decimal("-14.5")
    assert below[0].quantity == Decimal("-6.525")


def test_a_fee_that_is_taken_back_from_two_lines_is_of_as_many_each_time() -> None:
    assert [line.quantity for line in reduction(Kind.FIXED, "3")] == [Decimal(3), Decimal(3)]
