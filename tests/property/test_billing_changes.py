"""However often a subscription is changed, nobody gains by it and no unit is free twice."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from convergio.billing import owing, rules
from convergio.billing.model import Billed, ChargeKey
from convergio.kernel.periods import Period
from convergio.metering.model import UsageKey
from convergio.rating.model import Flat, Graduated, Package, Percentage, Tier, Unit, Volume
from convergio.rating.rules import Segment, allowance, rate, rate_segment
from convergio.subscriptions.model import Agreement, BillingView, Item
from tests.fakes.agreements import CUSTOMER, agreement, book, price, view, with_lines
from tests.fakes.business import at

START = at("2025-01-01")
END = at("2025-02-01")
SECONDS = int((END - START).total_seconds())
LOW, HIGH = price(1, Flat(amount="6.99")), price(2, Flat(amount="29.90"))
USE = price(3, Unit(unit="0.01", included="500"), meter="questions")
BOOK = book(LOW, HIGH, USE)
CENTS = {LOW.price_id: 699, HIGH.price_id: 2990}
moments = st.lists(st.integers(0, SECONDS - 1), min_size=1, max_size=20).map(sorted)

CHARGES = [
    Unit(unit="0.37", included="5"),
    Graduated(tiers=(Tier(up_to="10", flat="1", unit="0.5"), Tier(unit="0.25")), included="5"),
    Volume(tiers=(Tier(up_to="10", unit="0.5"), Tier(unit="0.25")), included="5"),
    Package(package_size="7", package_price="2", included="5"),
    Percentage(percent="2.9", fixed="0.30", included="5"),
    Flat(amount="9.99"),
]


def changed(seconds: list[int], *, credited: bool = True) -> list[BillingView]:
    """Return the customer before any change and after each of them: low, high, low, ..."""
    whole = agreement([LOW], START, periods=2)
    items = list(whole.items)
    views = [view(whole)]
    for number, second in enumerate(seconds, 1):
        moment = START + timedelta(seconds=second)
        last = items[-1]._replace(
            active_until=moment, credited=credited, end_reason=f"change {number}"
        )
        following = HIGH if number % 2 else LOW
        items[-1:] = [last, _item(following.price_id, number, moment, last)]
        views.append(view(Agreement(whole.subscription, tuple(items), whole.periods)))
    return views


def _item(price_id: UUID, number: int, moment: datetime, like: Item) -> Item:
    return Item(
        CUSTOMER, like.subscription_id, UUID(int=5000 + number), price_id, Decimal(1), moment, None
    )


def lived(views: list[BillingView], seconds: list[int]) -> dict[ChargeKey, Billed]:
    """Bill after every change and at the end, each run twice; return the first period's sums.

    What changes at an instant that is already invoiced comes with the next boundary.
    """
    billed: dict[ChargeKey, Billed] = {}
    last: datetime | None = None
    runs = [START, *(START + timedelta(seconds=second) for second in seconds), END]
    for here, closed in zip([*views, views[-1]], runs, strict=True):
        drafts, problems = rules.bill(here, BOOK, {}, billed, last_boundary=last, closed=closed)
        assert problems == []
        for draft in drafts:
            for line in draft.lines:
                known = billed[line.key].amount if line.key in billed else 0
                assert known + line.amount.minor >= 0, "no line takes back more than was billed"
        billed = with_lines(billed, drafts)
        last = max([d.boundary_at for d in drafts] + ([last] if last else []), default=None)
        again = rules.bill(here, BOOK, {}, billed, last_boundary=last, closed=closed)
        assert again == ([], [])
    return {key: one for key, one in billed.items() if key.period_start == START}


@given(seconds=moments)
def test_changes_never_give_a_net_credit(seconds: list[int]) -> None:
    views = changed(seconds)
    billed = lived(views, seconds)
    net = sum(one.amount for one in billed.values())
    exact = Fraction(0)
    for item in views[-1].agreements[0].items:
        until = min(item.active_until or END, END)
        seconds_ = int((until - item.active_from).total_seconds())
        exact += Fraction(CENTS[item.price_id] * seconds_, SECONDS)
    pieces = len(views[-1].agreements[0].items)
    assert net >= 0
    assert abs(net - exact) <= Fraction(pieces, 2), "half a cent for each piece at most"


@given(seconds=moments)
def test_runs_between_the_changes_make_no_difference(seconds: list[int]) -> None:
    views = changed(seconds)
    stepwise = lived(views, seconds)
    once, problems = rules.bill(views[-1], BOOK, {}, {}, last_boundary=None, closed=END)
    assert problems == []
    together = {k: b for k, b in with_lines({}, once).items() if k.period_start == START}
    assert {k: b.amount for k, b in stepwise.items() if b.amount} == {
        k: b.amount for k, b in together.items() if b.amount
    }


@given(second=st.integers(0, SECONDS - 1))
def test_up_and_down_at_one_instant_nets_to_nothing(second: int) -> None:
    before = lived(changed([second])[:1], [])
    views = changed([second, second])
    after = lived([views[0], views[-1]], [second])
    sums = [sum(one.amount for one in some.values()) for some in (before, after)]
    assert abs(sums[0] - sums[1]) <= 1, "two halves of a fee are rounded each"
    net = {item.price_id: 0 for item in views[-1].agreements[0].items}
    for item in views[-1].agreements[0].items:
        net[item.price_id] += sum(b.amount for k, b in after.items() if k.item_id == item.item_id)
    assert net[HIGH.price_id] == 0


@given(
    charge=st.sampled_from(CHARGES),
    cuts=st.lists(st.integers(1, 99), min_size=1, max_size=5, unique=True).map(sorted),
    used=st.lists(st.integers(0, 30), min_size=6, max_size=6),
)
def test_the_stretches_of_one_price_add_up_to_the_whole(
    charge: Unit | Graduated | Volume | Package | Percentage | Flat,
    cuts: list[int],
    used: list[int],
) -> None:
    edges = [0, *cuts, 100]
    total = Decimal(sum(used[: len(edges) - 1]))
    free = Decimal(getattr(charge, "included", "0"))
    before, cents = Decimal(0), 0
    for place, (start, end) in enumerate(pairwise(edges)):
        upto = before + used[place]
        segment = Segment(before, upto, total, free, Fraction(end - start, 100))
        rated = rate_segment(charge, segment, currency="usd")
        assert sum(line.amount.minor for line in rated.lines) == rated.total.minor
        cents += rated.total.minor
        before = upto
    whole = rate(charge, total, currency="usd").total.minor
    assert abs(cents - whole) <= Fraction(len(edges) - 1, 2)


@given(
    cuts=st.lists(st.integers(1, SECONDS - 1), max_size=4, unique=True).map(sorted),
    included=st.lists(st.integers(0, 1000), min_size=5, max_size=5),
)
def test_an_allowance_lies_between_its_parts(cuts: list[int], included: list[int]) -> None:
    edges = [START, *(START + timedelta(seconds=cut) for cut in cuts), END]
    stretches = [Period(start, end) for start, end in pairwise(edges)]
    quantities = [Decimal(number) for number in included[: len(stretches)]]
    found = allowance(list(zip(quantities, stretches, strict=True)), Period(START, END))
    assert min(quantities) <= found <= max(quantities)
    assert found == int(found)


@given(
    second=st.integers(1, SECONDS - 1), first=st.integers(0, 900), second_use=st.integers(0, 900)
)
def test_a_change_gives_no_unit_free_twice(second: int, first: int, second_use: int) -> None:
    cut = START + timedelta(seconds=second)
    whole = agreement([USE], START, periods=2)
    (item,) = whole.items
    old = item._replace(active_until=cut, credited=True, end_reason="change")
    new = item._replace(item_id=UUID(int=77), active_from=cut)
    both = view(Agreement(whole.subscription, (old, new), whole.periods))
    usage: dict[UsageKey, Decimal] = {
        (CUSTOMER, "questions", START): Decimal(first),
        (CUSTOMER, "questions", cut): Decimal(second_use),
    }
    charges = owing.owed(both, BOOK, usage, closed=END)
    assert sum(c.amount.minor for c in charges.values()) == max(0, first + second_use - 500)
