"""A reduction that takes back from several lines has its quantity once, and can be undone."""

from copy import deepcopy
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from convergio.billing import bearing, charging, crediting, owing
from convergio.billing.model import ChargeKey, Creditable, Draft, Kind, Line
from convergio.discounts.actions import Offers
from convergio.discounts.model import Draw, Grant
from convergio.kernel.money import Money
from convergio.rating.taxing import Treatment

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


def test_documents_that_are_not_made_after_all_use_nothing_up() -> None:
    key, other, grant_id = ChargeKey(ITEM, START, Kind.FIXED, ""), UUID(int=8), UUID(int=7)
    rows = [
        Creditable(
            who, UUID(int=9), number, ITEM, START, Kind.FIXED, "", "Fee", "usd", 100, 50,
            tax_rate=Decimal(20), tax_treatment=Treatment.STANDARD,
        )
        for who, number in ((WHO, 1), (WHO, 2), (other, 3))
    ]  # fmt: skip
    world = charging.World(
        owing.Prices(),
        crediting.Left(rows),
        bearing.Credited(),
        Offers(grants={WHO: [Grant(grant_id, START, None, 0)]}),
        None,
        {},
        {},
        taken={(UUID(int=9), number): [Draw(grant_id, None, 50)] for number in (1, 2, 3)},
    )
    amount = Money(-150, "usd")
    line = Line(UUID(int=3), key, END, UUID(int=4), "credit", "Fee", Decimal(1), amount, "{}")
    draft = Draft(WHO, END, (line,), amount)
    offers, taken = deepcopy(world.offers), deepcopy(world.taken)
    forget = world.remembered(draft)
    first = charging.charge(draft, world)
    assert first[1][0].sums == (150, 75, 15)
    assert world.taken != taken
    assert world.offers != offers
    forget()
    assert (world.taken, world.offers) == (taken, offers)
    assert charging.charge(draft, world) == first
