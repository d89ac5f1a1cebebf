"""The peers' cases about changes, runs and credit, and how their inputs are read."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec

from convergio.billing import crediting, owing, rules
from convergio.billing.model import (
    Billed,
    ChargeKey,
    Creditable,
    Draft,
    Invoice,
    Kind,
    Numbers,
)
from convergio.kernel.money import Money
from convergio.kernel.periods import Interval, Period, local, parse_instant, zone
from convergio.metering.model import UsageKey
from convergio.rating import Charge, Rated, proration, rate
from convergio.rating.model import Flat, Package
from convergio.subscriptions import rules as subscription_rules
from convergio.subscriptions.model import Trial
from tests.fakes.agreements import CUSTOMER, agreement, book, ended, price, view, with_lines

Case = dict[str, Any]


def charge(model: str, **fields: object) -> Charge:
    priced: Charge = msgspec.convert({"model": model, **fields}, Charge)
    return priced


def usd(model: str, quantity: object, share: Fraction | None = None, **fields: object) -> Rated:
    priced = charge(model, **fields)
    return rate(priced, Decimal(str(quantity)), currency="usd", proration=share)


def major(cents: object) -> str:
    """Write cents in major units."""
    return f"{Decimal(str(cents)).scaleb(-2):f}"


def share_of(full: Iterable[str], service: Iterable[str]) -> Fraction:
    return proration(Period(*map(day, full)), Period(*map(day, service)))


def day(text: str) -> datetime:
    return parse_instant(text if "T" in text else f"{text}T00:00:00Z")


def kept_whole(case: Case) -> None:
    """End without credit: the period is owed whole (`bill_full_period`)."""
    start, end = map(day, case["inputs"]["service_period"])
    fee = price(1, Flat(amount=case["inputs"]["amount"]))
    gone = ended(agreement([fee], start), end)
    (charge_,) = owing.owed(view(gone), book(fee), {}, closed=end).values()
    assert charge_.amount.text() == Money.parse(case["expected"]["amount"], "usd").text()


def trial_end(case: Case) -> None:
    """A trial ends at the anchor, however far in the future that lies."""
    inputs = case["inputs"]
    now, anchor = day(inputs["now"]), day(inputs["anchor"])
    made = subscription_rules.new_subscription(
        CUSTOMER, CUSTOMER, "pro", start=now, now=now, time_zone="UTC", currency="usd",
        trial=Trial((anchor - now).days),
    )  # fmt: skip
    first = subscription_rules.first_period(made, Interval(inputs["interval"]))
    found = subscription_rules.next_boundary(made, [first], now=now)
    assert found == day(case["expected"]["cycle_end"])


def billed_once(case: Case) -> None:
    """Runs around a boundary invoice it once: a fee of a period is billed by one of them."""
    inputs, expected = case["inputs"], case["expected"]
    start = day(inputs["created"])
    if inputs["billing"] == "calendar":
        start = local(start.replace(tzinfo=None), zone(inputs["timezone"]))
    fee = price(1, Flat(amount="10"))
    here = view(agreement([fee], start, zone=inputs["timezone"]))
    billed: dict[ChargeKey, Billed] = {}
    counts = []
    last: datetime | None = None
    first, _ = rules.bill(here, book(fee), {}, {}, last_boundary=None, closed=start)
    billed, last = with_lines(billed, first), start
    for runs in ("runs_before", "runs_on_day", "runs_after"):
        for text in inputs[runs]:
            drafts, _ = rules.bill(
                here, book(fee), {}, billed, last_boundary=last, closed=day(text)
            )
            billed = with_lines(billed, drafts)
            last = max([last, *(draft.boundary_at for draft in drafts)])
        counts.append(len({key for key in billed if key.period_start > start}))
    assert counts == [expected[f"invoices_after_{name}"] for name in ("before", "day", "all")]


def used_until_the_end(case: Case) -> None:
    """What is used after the end is nobody's period: it is not asked for."""
    inputs = case["inputs"]
    start = day(inputs["start"])
    size, each = str(inputs["package_size"]), inputs["package_price"]
    packs = price(1, Package(package_size=size, package_price=each), meter="questions")
    end = day(inputs["cancel"]) + timedelta(days=1)
    gone = view(ended(agreement([packs], start), end))
    ((_, _, asked),) = owing.usage_requests(gone, book(packs), closed=end)
    used = sum(count for when, count in inputs["usage"] if asked.contains(day(when)))
    usage: dict[UsageKey, Decimal] = {(CUSTOMER, "questions", start): Decimal(used)}
    (charge_,) = owing.owed(gone, book(packs), usage, closed=end).values()
    assert charge_.amount.text() == case["expected"]["amount"]


def left_of(billed: str, credited: str) -> crediting.Left:
    """Return what is left to credit of one line."""
    minor = Money.parse(billed, "usd").minor - Money.parse(credited, "usd").minor
    line = Creditable(
        CUSTOMER, CUSTOMER, 1, CUSTOMER, day("2012-05-01"), Kind.FIXED, "", "Fee", "usd", minor
    )
    return crediting.Left([line])


def taken(left: crediting.Left, amount: str) -> str:
    """Return how much of an amount can be taken back."""
    key = ChargeKey(CUSTOMER, day("2012-05-01"), Kind.FIXED, "")
    parts = left.take(CUSTOMER, key, Money.parse(amount, "usd").minor)
    return Money(sum(part for _, part, _ in parts), "usd").text()


def credit_cap(case: Case) -> None:
    inputs = case["inputs"]
    found = taken(
        left_of(inputs["original_paid"], inputs["previous_credits"]), inputs["potential_credit"]
    )
    assert Decimal(found) == Decimal(case["expected"]["credit"])


def capped_repair(case: Case) -> None:
    """Credit what is unused, but no more than an earlier adjustment left."""
    inputs, expected = case["inputs"], case["expected"]
    unused = share_of(inputs["period"], (inputs["change"], inputs["period"][1]))
    repair = usd("flat", 1, unused, amount=inputs["old_price"]).total.text()
    adjusted = inputs["item_adjustment"].removeprefix("-")
    assert "-" + taken(left_of(inputs["old_price"], adjusted), repair) == expected["repair"]
    assert (
        usd("flat", 1, unused, amount=inputs["new_price"]).total.text()
        == (expected["new_recurring"])
    )


def an_invoice(total: int) -> Invoice:
    """Return an open invoice of so many major units."""
    (made,) = rules.number_drafts(
        [Draft(CUSTOMER, day("2024-01-01"), (), Money(total * 100, "usd"))],
        [CUSTOMER],
        Numbers("CVG", 2024, 1, date(2024, 1, 1)),
        [b""],
        net_days=lambda _: 14,
        finalized_at=day("2024-01-01"),
        from_balance=[0],
    )
    return made


def adjusted_unpaid(case: Case) -> None:
    """A credit note of an unpaid invoice lowers what is due, and nothing goes to the balance."""
    inputs, expected = case["inputs"], case["expected"]
    credit = Money(-inputs["item_adj"] * 100, "usd")
    after, applied = crediting.apply(an_invoice(inputs["charge"]), credit)
    assert (credit - applied).minor == expected["credit_generated"]
    assert after.due.minor == expected["balance"] * 100


def failed_payment(case: Case) -> None:
    """A payment that fails takes nothing off: the invoice stays open."""
    assert an_invoice(30).status == case["expected"]["end_status"] == case["inputs"]["status"]
