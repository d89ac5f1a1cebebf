"""The peers' cases about coupons, credit and tax, each put to our functions in our words."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from convergio.billing import bearing, rules
from convergio.billing.model import Creditable, CreditLine, Draft, Kind
from convergio.discounts import rules as discounting
from convergio.discounts.model import Discountable, Grant, Redemption, Span
from convergio.kernel.money import Amount, Money
from convergio.kernel.periods import Interval
from convergio.rating.taxing import (
    GroupKey,
    Place,
    Priced,
    Rate,
    Registration,
    TaxBook,
    Taxed,
    Treatment,
    tax_groups,
)
from tests.fakes.agreements import CUSTOMER
from tests.fakes.peer_changes import Case, day

START, END = day("2025-01-01"), day("2025-02-01")
EVER = date(2000, 1, 1)


def _line(minor: int) -> Discountable:
    return Discountable(minor, "fee", START, END, "s")


def _redemption(number: int, percent: str | None, amount: int | None) -> Redemption:
    return Redemption(
        CUSTOMER, UUID(int=number), CUSTOMER, "CODE", "Code",
        None if percent is None else Decimal(percent), amount, None if amount is None else "usd",
        START, Span(START, "UTC", Interval.MONTH, 0, 0), None,
    )  # fmt: skip


def _taken(minor: int, redemptions: list[Redemption]) -> int:
    (draws,) = discounting.coupons_off([_line(minor)], redemptions, {}, currency="usd")
    return sum(draw.amount for draw in draws)


def _key(percent: str) -> GroupKey:
    return GroupKey("standard", Decimal(percent), Treatment.STANDARD, inclusive=False)


def _tax(minor: int, percent: str) -> int:
    return sum(row.tax for row in tax_groups([Priced(Money(minor, "usd"), _key(percent))]))


def percentages_commute(case: Case) -> None:
    subtotal = case["inputs"]["subtotal_cents"]
    every = [
        _redemption(number, text.removesuffix("%"), None)
        for number, text in enumerate(case["inputs"]["coupons"])
    ]
    wanted = case["expected"]["discount_cents"]
    assert _taken(subtotal, every) == _taken(subtotal, every[::-1]) == wanted


def coupons_beyond(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    every = [_redemption(n, None, amount) for n, amount in enumerate(inputs["coupons_cents"])]
    applied = _taken(inputs["fees_cents"], every)
    left = inputs["fees_cents"] - applied
    tax = _tax(left, inputs["tax_percent"])
    found = (applied, tax, left + tax)
    assert found == (expected["coupon_applied"], expected["taxes"], expected["total"])


def exempt(case: Case) -> None:
    home = Registration("IT", "", EVER, None)
    book = TaxBook(
        "IT",
        one_stop_shop=False,
        registrations=(home,),
        rates=(Rate("IT", "", "standard", EVER, None, Decimal(22)),),
    )
    place = Place("IT", exemption=Treatment.EXEMPT if case["inputs"]["exempt"] else None)
    known = book.decide(place, "standard", date(2025, 1, 1))
    assert isinstance(known, Taxed)
    key = bearing.taxed(known, inclusive=False).group
    rows = tax_groups(Priced(Money(minor, "usd"), key) for minor in case["inputs"]["lines_cents"])
    found = sum(row.tax for row in rows), sum(row.net + row.tax for row in rows)
    assert found == (case["expected"]["tax_total"], case["expected"]["total"])


def _credited(left: bearing.Credited, minor: int, percent: str) -> tuple[int, int]:
    row = Creditable(
        CUSTOMER, CUSTOMER, 1, CUSTOMER, START, Kind.FIXED, "", "Fee", "usd", minor, 0,
        *_key(percent),
    )  # fmt: skip
    share = bearing.share(row, minor)
    line = CreditLine(1, Kind.FIXED, "Fee", Decimal(1), Money(minor, "usd"), share)
    (tax,) = left.take(CUSTOMER, [line])
    return tax.tax, tax.net + tax.tax


def unused_part_with_tax(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    major = Fraction(inputs["amount_cents"], 100) * Fraction(inputs["unused_fraction"])
    subtotal = Amount(major, "usd").round().minor
    tax, total = _credited(bearing.Credited(), subtotal, inputs["tax_percent"])
    assert _tax(inputs["amount_cents"], inputs["tax_percent"]) == inputs["invoice_tax_cents"]
    assert (subtotal, tax, total) == (
        expected["credit_subtotal_cents"], expected["tax_cents"], expected["total_cents"],
    )  # fmt: skip


def last_note_closes(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    net = Fraction(inputs["invoice_total_cents"]) / (1 + Fraction(inputs["tax_percent"]) / 100)
    whole, credited = int(net), bearing.Credited()
    assert whole == net
    before = _credited(credited, whole - inputs["item_cents"], inputs["tax_percent"])
    tax, total = _credited(credited, inputs["item_cents"], inputs["tax_percent"])
    assert before[1] + total == inputs["invoice_total_cents"]
    assert (tax, total) == (expected["tax"], expected["total"])


def _drawn(left: int, minor: int) -> tuple[int, int]:
    grant = Grant(CUSTOMER, START, None, left)
    _, (after,) = discounting.grants_off([_line(minor)], [grant], {"s": minor}, currency="usd")
    return left - after.left, after.left


def burned_down(case: Case) -> None:
    (grant,) = case["inputs"]["grants"]
    usage = Money.parse(case["inputs"]["usage_total"], "usd").minor
    taken, left = _drawn(Money.parse(grant["amount"], "usd").minor, usage)
    balance = Money.parse(case["expected"]["balances"][grant["id"]], "usd").minor
    assert (left, usage - taken) == (
        balance,
        Money.parse(case["expected"]["overage"], "usd").minor,
    )


def credit_then_invoice(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    charge = Money.parse(inputs["charge"], "usd").minor
    taken, _ = _drawn(Money.parse(inputs["balance"], "usd").minor, charge)
    assert Money(taken, "usd") == Money.parse(expected["consumed"], "usd")
    assert Money(charge - taken, "usd") == Money.parse(expected["invoice_remainder"], "usd")


def balance_pays(case: Case) -> None:
    left = Money.parse(case["inputs"]["opening_balance"], "usd").minor
    totals = [Money.parse(text, "usd") for text in case["inputs"]["invoice_totals"]]
    drafts = [Draft(CUSTOMER, START, (), total) for total in totals]
    for place, part in enumerate(rules.drawn(drafts, {CUSTOMER: left})):
        left -= part
        assert Money(left, "usd").text() == case["expected"]["balance_after"][place]
        due = totals[place] - Money(part, "usd")
        assert due == Money.parse(case["expected"]["invoice_due"][place], "usd")
