"""However usage arrives and runs fall, billing converges on what is owed, and never beyond."""

from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from convergio.billing import owing, rules
from convergio.billing.model import Billed, ChargeKey, Draft
from convergio.metering.model import UsageKey
from convergio.rating.model import Graduated, Tier
from convergio.subscriptions.model import BillingView
from tests.fakes.agreements import (
    CUSTOMER,
    FEE,
    agreement,
    book,
    ended,
    price,
    view,
    with_lines,
)
from tests.fakes.business import at

START = at("2024-01-31")
PERIODS = 4
FEES = price(1, FEE)
USAGE = price(
    2,
    Graduated(
        tiers=(Tier(up_to="10", flat="1", unit="0.005"), Tier(up_to=None, unit="0.0333")),
        included="3",
    ),
    meter="questions",
)
BOOK = book(FEES, USAGE)
AGREEMENT = agreement([FEES, USAGE], START, periods=PERIODS)
STARTS = [period.start_at for period in next(iter(AGREEMENT.periods.values()))]
END = START + timedelta(days=200)

arrivals = st.lists(
    st.tuples(
        st.integers(0, 200),  # the day on which it arrives
        st.integers(0, PERIODS - 1),  # the period in which it occurred
        st.decimals(0, 40, places=3),
    ),
    max_size=12,
)
runs = st.lists(st.integers(0, 200), max_size=10)
leaving = st.none() | st.integers(1, 120)


def usage_by(day: int, events: list[tuple[int, int, Decimal]]) -> owing.Usage:
    sums: dict[UsageKey, Decimal] = {}
    for arrived, period, quantity in events:
        if arrived <= day:
            key = (CUSTOMER, "questions", STARTS[period])
            sums[key] = sums.get(key, Decimal(0)) + quantity
    return sums


def lived(
    events: list[tuple[int, int, Decimal]], days: list[int], left: int | None
) -> tuple[list[Draft], dict[ChargeKey, Billed], BillingView]:
    """Return all invoices of a life: runs on some days, one on the last."""
    here = AGREEMENT if left is None else ended(AGREEMENT, START + timedelta(days=left))
    drafts: list[Draft] = []
    billed: dict[ChargeKey, Billed] = {}
    last: datetime | None = None
    for day in [*sorted(days), 200]:
        closed = START + timedelta(days=day)
        now = here if left is not None and day >= left else AGREEMENT
        some, problems = rules.bill(
            view(now), BOOK, usage_by(day, events), billed, last_boundary=last, closed=closed
        )
        assert problems == []
        billed = with_lines(billed, some)
        drafts += some
        last = max([d.boundary_at for d in some] + ([last] if last else []), default=None)
    return drafts, billed, view(here)


@given(events=arrivals, days=runs, left=leaving)
def test_invoices_add_up_to_what_is_owed_in_the_end(
    events: list[tuple[int, int, Decimal]], days: list[int], left: int | None
) -> None:
    _, billed, here = lived(events, days, left)
    charges = owing.owed(here, BOOK, usage_by(200, events), closed=END)
    if left is None:
        # A live customer's usage that came after the last boundary waits for the next one.
        events = [one for one in events if one[0] < (STARTS[-1] - START).days]
        _, billed, here = lived(events, days, left)
        charges = owing.owed(here, BOOK, usage_by(200, events), closed=END)
    owed = {key: c.amount.minor for key, c in charges.items() if c.amount.minor}
    assert {key: one.amount for key, one in billed.items() if one.amount} == owed


@given(events=arrivals, days=runs, left=leaving)
def test_a_life_has_one_invoice_a_boundary_and_a_second_run_finds_nothing(
    events: list[tuple[int, int, Decimal]], days: list[int], left: int | None
) -> None:
    drafts, billed, here = lived(events, days, left)
    boundaries = [draft.boundary_at for draft in drafts]
    assert boundaries == sorted(set(boundaries))
    for draft in drafts:
        assert sum(line.amount.minor for line in draft.lines) == draft.total.minor > 0
        assert all(line.amount.minor for line in draft.lines)
    again = rules.bill(
        here, BOOK, usage_by(200, events), billed,
        last_boundary=boundaries[-1] if boundaries else None, closed=END,
    )  # fmt: skip
    assert again == ([], [])


@given(events=arrivals, one=runs, other=runs, left=st.integers(1, 120))
def test_the_order_of_runs_and_late_events_does_not_change_the_sum(
    events: list[tuple[int, int, Decimal]], one: list[int], other: list[int], left: int
) -> None:
    sums = [sum(b.amount for b in lived(events, days, left)[1].values()) for days in (one, other)]
    assert sums[0] == sums[1]
