"""Owed less billed, by hand: which boundary, which line, which reason."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from convergio.billing import auditing, owing, rules
from convergio.billing.auditing import NumberingRow
from convergio.billing.model import (
    Billed,
    Charge,
    ChargeKey,
    Draft,
    Invoice,
    Kind,
    Numbers,
    Status,
)
from convergio.billing.reporting import Report
from convergio.kernel.errors import Conflict, Fault
from convergio.kernel.money import Money
from convergio.ledger.model import Account
from convergio.rating.model import Flat, Unit
from tests.fakes.agreements import (
    CUSTOMER,
    FEE,
    QUESTIONS,
    agreement,
    book,
    ended,
    price,
    view,
    with_lines,
)
from tests.fakes.business import at

START = at("2024-11-01")
FEES = price(1, FEE)
USAGE = price(2, QUESTIONS, meter="questions")
BOOK = book(FEES, USAGE)
PRO = agreement([FEES, USAGE], START)


def used(quantity: int, start: datetime = START) -> owing.Usage:
    return {(CUSTOMER, "questions", start): Decimal(quantity)}


def amounts(charges: dict[ChargeKey, Charge]) -> list[tuple[str, datetime, int]]:
    return sorted((c.key.kind.value, c.due_at, c.amount.minor) for c in charges.values())


def shown(drafts: list[Draft]) -> list[tuple[datetime, list[tuple[str, int]]]]:
    return [(d.boundary_at, [(x.reason, x.amount.minor) for x in d.lines]) for d in drafts]


def test_fees_are_owed_at_the_start_and_usage_at_the_end() -> None:
    charges = owing.owed(view(PRO), BOOK, used(510), closed=at("2024-12-01"))
    assert amounts(charges) == [
        ("fixed", at("2024-11-01"), 699),
        ("fixed", at("2024-12-01"), 699),
        ("usage", at("2024-12-01"), 10),
    ]


def test_nothing_is_owed_before_its_boundary_is_closed() -> None:
    just_before = at("2024-12-01") - timedelta(microseconds=1)
    charges = owing.owed(view(PRO), BOOK, used(510), closed=just_before)
    assert amounts(charges) == [("fixed", at("2024-11-01"), 699)]


def test_only_usage_of_closed_boundaries_is_asked_for() -> None:
    asked = owing.usage_requests(view(PRO), BOOK, closed=at("2024-12-01"))
    assert [(meter, p.start, p.end) for _, meter, p in asked] == [
        ("questions", at("2024-11-01"), at("2024-12-01"))
    ]


def test_each_price_has_its_own_interval_on_the_one_anchor() -> None:
    yearly = price(3, Flat(amount="100"), interval="year")
    both = agreement([yearly, USAGE], at("2024-01-31"), periods=13)
    charges = owing.owed(view(both), book(yearly, USAGE), {}, closed=at("2025-02-01"))
    fixed = [c.due_at for c in charges.values() if c.key.kind == Kind.FIXED]
    usage = [c.due_at for c in charges.values() if c.key.kind == Kind.USAGE]
    assert fixed == [at("2024-01-31"), at("2025-01-31")]
    assert usage[:3] == [at("2024-02-29"), at("2024-03-31"), at("2024-04-30")]


def test_an_end_within_a_period_closes_its_usage_and_keeps_its_fee() -> None:
    gone = ended(PRO, at("2024-11-15"))
    charges = owing.owed(view(gone), BOOK, used(600), closed=at("2025-03-01"))
    assert amounts(charges) == [
        ("fixed", at("2024-11-01"), 699),
        ("usage", at("2024-11-15"), 100),
    ]


def test_an_end_at_the_very_start_owes_nothing() -> None:
    assert owing.owed(view(ended(PRO, START)), BOOK, {}, closed=at("2025-01-01")) == {}


def test_one_boundary_is_one_invoice_with_both_kinds() -> None:
    charges = owing.owed(view(PRO), BOOK, used(510), closed=at("2024-12-01"))
    drafts, problems = rules.settle(
        view(PRO), BOOK, charges, {}, last_boundary=None, closed=at("2024-12-01")
    )
    assert problems == []
    assert shown(drafts) == [
        (at("2024-11-01"), [("fee", 699)]),
        (at("2024-12-01"), [("fee", 699), ("usage", 10)]),
    ]
    assert [d.total for d in drafts] == [Money(699, "usd"), Money(709, "usd")]


def test_zero_is_not_a_line_and_no_line_is_no_invoice() -> None:
    free = price(4, Unit(unit="0", included="50"), meter="questions")
    drafts, problems = rules.bill(
        view(agreement([free], START)), book(free), used(40), {},
        last_boundary=None, closed=at("2025-01-01"),
    )  # fmt: skip
    assert (drafts, problems) == ([], [])


def test_late_usage_waits_for_the_next_boundary_of_a_live_customer() -> None:
    closed = at("2024-12-01")
    first, _ = rules.bill(view(PRO), BOOK, used(510), {}, last_boundary=None, closed=closed)
    billed = with_lines({}, first)
    late, _ = rules.bill(view(PRO), BOOK, used(515), billed, last_boundary=closed, closed=closed)
    assert late == []
    then, _ = rules.bill(
        view(PRO), BOOK, used(515), billed, last_boundary=closed, closed=at("2025-01-01")
    )
    assert shown(then) == [
        (at("2025-01-01"), [("fee", 699), ("late usage for 2024-11-01 to 2024-11-30", 5)])
    ]


def test_late_usage_of_a_customer_who_left_is_invoiced_at_once() -> None:
    gone, closed = view(ended(PRO, at("2024-11-15"))), at("2024-12-10")
    first, _ = rules.bill(gone, BOOK, used(510), {}, last_boundary=None, closed=closed)
    billed, last = with_lines({}, first), first[-1].boundary_at
    assert last == at("2024-11-15")
    final, _ = rules.bill(gone, BOOK, used(512), billed, last_boundary=last, closed=closed)
    assert shown(final) == [(closed, [("late usage for 2024-11-01 to 2024-11-14", 2)])]
    again, _ = rules.bill(
        gone, BOOK, used(513), with_lines(billed, final), last_boundary=closed, closed=closed
    )
    assert [one.boundary_at for one in again] == [closed + timedelta(microseconds=1)]


def test_the_days_of_a_late_period_are_those_of_the_subscriptions_zone() -> None:
    start = at("2024-10-31T15:00:00Z")
    there = agreement([USAGE], start, zone="Asia/Tokyo")
    closed = at("2024-12-10")
    billed = {
        ChargeKey(there.items[0].item_id, start, Kind.USAGE, ""): Billed(1, Decimal(0), start)
    }
    drafts, _ = rules.bill(
        view(ended(there, at("2024-11-30T15:00:00Z"))), book(USAGE), used(502, start), billed,
        last_boundary=closed, closed=closed,
    )  # fmt: skip
    assert drafts[0].lines[0].reason == "late usage for 2024-11-01 to 2024-11-30"


def test_more_billed_than_owed_is_taken_back_at_the_next_boundary() -> None:
    closed = at("2024-12-01")
    first, _ = rules.bill(view(PRO), BOOK, used(510), {}, last_boundary=None, closed=closed)
    billed = with_lines({}, first)
    waits, _ = rules.bill(view(PRO), BOOK, used(505), billed, last_boundary=closed, closed=closed)
    assert waits == []
    drafts, problems = rules.bill(
        view(PRO), BOOK, used(505), billed, last_boundary=closed, closed=at("2025-01-01")
    )
    assert problems == []
    reason = "credit: correction of usage for 2024-11-01 to 2024-11-30"
    assert shown(drafts) == [(at("2025-01-01"), [("fee", 699), (reason, -5)])]
    assert drafts[0].total == Money(694, "usd")


def test_a_line_that_nothing_owes_is_a_problem_once_its_period_has_begun() -> None:
    stray = {ChargeKey(UUID(int=9), START, Kind.FIXED, ""): Billed(5, Decimal(1), at("2024-12-01"))}
    for closed, count in ((at("2024-10-31"), 0), (at("2024-11-01"), 1)):
        _, problems = rules.bill(view(PRO), BOOK, {}, stray, last_boundary=None, closed=closed)
        assert [one.code for one in problems] == ["stray"] * count


def test_an_earlier_run_does_not_mistake_later_lines_for_too_much() -> None:
    closed = at("2025-01-01")
    first, _ = rules.bill(view(PRO), BOOK, {}, {}, last_boundary=None, closed=closed)
    billed = with_lines({}, first)
    again = rules.bill(view(PRO), BOOK, {}, billed, last_boundary=closed, closed=at("2024-11-20"))
    assert again == ([], [])


def test_a_customer_whose_price_is_gone_is_a_problem_and_asks_for_no_usage() -> None:
    assert owing.usage_requests(view(PRO), book(), closed=at("2025-01-01")) == []
    drafts, problems = rules.bill(
        view(PRO), book(), {}, {}, last_boundary=None, closed=at("2025-01-01")
    )
    assert drafts == []
    assert [one.code for one in problems] == ["fault"]


def test_fees_are_deferred_and_usage_is_earned() -> None:
    drafts, _ = rules.bill(
        view(PRO), BOOK, used(600), {}, last_boundary=None, closed=at("2024-12-01")
    )
    assert rules.revenue(drafts[-1]) == {
        Account.DEFERRED_REVENUE: Money(699, "usd"),
        Account.USAGE_REVENUE: Money(100, "usd"),
    }


@pytest.mark.parametrize(
    ("last", "day"),
    [(None, date(2025, 1, 1)), (date(2024, 1, 1), date(2025, 1, 1)), (date(2026, 1, 1),) * 2],
)
def test_the_issue_day_never_goes_back(last: date | None, day: date) -> None:
    assert rules.issue_day(at("2024-12-31T20:00:00Z"), "Asia/Tokyo", last=last) == day


def invoice(total: int, status: Status = Status.OPEN) -> Invoice:
    draft = Draft(CUSTOMER, START, (), Money(total, "usd"))
    (made,) = rules.number_drafts(
        [draft],
        [UUID(int=7)],
        Numbers("CVG", 2025, 123, date(2025, 1, 2)),
        [b"sealed"],
        net_days=lambda _: 14,
        finalized_at=START,
        from_balance=[0],
    )
    assert made.status == status
    return made


def test_an_invoice_is_numbered_dated_and_due() -> None:
    made = invoice(5)
    assert (made.number_text, made.due_on) == ("CVG-2025-000123", date(2025, 1, 16))
    assert rules.parse_number(made.number_text) == ("CVG", 2025, 123)


def test_money_that_came_is_never_refused_and_the_excess_is_the_customers() -> None:
    paid, excess = rules.pay(invoice(0, Status.PAID), Money(1, "usd"))
    assert (paid.status, paid.due, excess) == (Status.PAID, Money(0, "usd"), Money(1, "usd"))


def test_payments_add_up_to_the_total_and_the_rest_is_excess() -> None:
    half, excess = rules.pay(invoice(10), Money(4, "usd"))
    assert (half.status, half.due, excess.minor) == (Status.OPEN, Money(6, "usd"), 0)
    whole, excess = rules.pay(half, Money(9, "usd"))
    assert (whole.status, whole.paid, whole.excess, excess.minor) == (Status.PAID, 13, 3, 3)
    with pytest.raises(Conflict):
        rules.pay(half, Money(6, "eur"))
    with pytest.raises(Fault):
        rules.pay(half, Money(0, "usd"))


@pytest.mark.parametrize(
    ("row", "count"),
    [
        ((3, 1, 3, 3, 3), 0),
        ((0, 0, 0, 0, 0), 0),
        ((3, 1, 3, 2, 2), 1),
        ((3, 1, 4, 3, 3), 1),
        ((3, 1, 3, 4, 3), 1),
        ((0, 1, 1, 1, 1), 1),
    ],
)
def test_a_gap_or_a_duplicate_in_the_numbers_is_told(row: tuple[int, ...], count: int) -> None:
    assert len(auditing.gaps(NumberingRow("CVG", 2025, *row))) == count


def test_a_report_begins_with_invoices_and_their_total_by_currency() -> None:
    report = Report()
    for currency in ("usd", "jpy"):
        report.add([Draft(CUSTOMER, START, (), Money(699, currency))], [], customers=1)
    value = report.value()
    assert list(value)[:2] == ["invoices", "total"]
    assert value["total"] == {"jpy": "699", "usd": "6.99"}


def test_prices_of_single_customers_do_not_pile_up_in_a_run() -> None:
    prices = book(FEES, USAGE)
    prices.add({UUID(int=n): FEES for n in range(10, 10_011)})
    assert prices.missing([]) == []
    assert prices.get(FEES.price_id) == FEES
    with pytest.raises(Fault, match="not in the catalog"):
        prices.get(UUID(int=10))
