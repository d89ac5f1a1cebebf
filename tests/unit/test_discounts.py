"""Coupons and credit on lines, by hand: which lines, in which order, how much."""

from decimal import Decimal
from uuid import UUID

import pytest

from convergio.discounts import rules
from convergio.discounts.model import (
    Discountable,
    Duration,
    Grant,
    Redemption,
    Span,
    Terms,
)
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import Calendar, Interval
from tests.fakes.business import at

ANCHOR = at("2025-01-31")
END = {"2025-01-31": "2025-02-28", "2025-02-28": "2025-03-31", "2025-03-31": "2025-04-30"}


def line(amount: int, day: str = "2025-01-31", key: str = "fee", group: str = "s") -> Discountable:
    return Discountable(amount, key, at(day), at(END.get(day, "2026-01-31")), group)


def redemption(
    number: int,
    *,
    percent: str | None = None,
    amount: int | None = None,
    first: int = 0,
    last: int | None = None,
    keys: frozenset[str] | None = None,
) -> Redemption:
    span = Span(ANCHOR, "UTC", Interval.MONTH, first, last)
    return Redemption(
        UUID(int=1), UUID(int=number), UUID(int=99), "CODE", "Code",
        None if percent is None else Decimal(percent), amount,
        None if amount is None else "usd", ANCHOR, span, keys,
    )  # fmt: skip


def taken(lines: list[Discountable], *redemptions: Redemption) -> list[int]:
    draws = rules.coupons_off(lines, redemptions, {}, currency="usd")
    return [sum(draw.amount for draw in some) for some in draws]


def test_a_percentage_is_rounded_once_and_shared_by_largest_remainder() -> None:
    assert taken([line(333), line(333), line(334)], redemption(1, percent="15")) == [50, 50, 50]
    assert taken([line(1), line(1), line(1)], redemption(1, percent="50")) == [1, 1, 0]


def test_among_equal_remainders_the_earlier_line_of_the_document_is_served_first() -> None:
    fee, late, usage = line(814, "2025-03-20"), line(699, "2025-02-05"), line(699, "2025-03-05")
    assert taken([fee, late, usage], redemption(1, percent="0.5")) == [4, 4, 3]


def test_later_coupons_take_of_what_earlier_ones_left() -> None:
    half, tenth = redemption(1, percent="50"), redemption(2, percent="10")
    assert taken([line(1_000)], half, tenth) == [550] == taken([line(1_000)], tenth, half)


def test_an_amount_never_takes_more_than_there_is() -> None:
    assert taken([line(300), line(100)], redemption(1, amount=500)) == [300, 100]
    assert taken([line(300), line(100)], redemption(1, amount=200)) == [150, 50]


def test_an_amount_is_there_once_a_period_and_counts_what_was_taken_before() -> None:
    drawn = {(UUID(int=1), 0): 400}
    lines = [line(300), line(300, "2025-02-28")]
    draws = rules.coupons_off(lines, [redemption(1, amount=500)], drawn, currency="usd")
    assert [[(d.period_number, d.amount) for d in some] for some in draws] == [
        [(0, 100)],
        [(1, 300)],
    ]
    assert drawn == {(UUID(int=1), 0): 500, (UUID(int=1), 1): 300}


def test_a_coupon_counts_for_its_period_numbers_whenever_the_line_comes() -> None:
    second = redemption(1, percent="10", first=1, last=1)
    days = ["2025-01-31", "2025-02-28", "2025-03-31"]
    assert taken([line(1_000, day) for day in days], second) == [0, 100, 0]
    forever = redemption(1, percent="10", first=1)
    assert taken([line(1_000, day) for day in days], forever) == [0, 100, 100]


def test_a_coupon_of_some_prices_leaves_the_others_alone() -> None:
    only = redemption(1, percent="10", keys=frozenset({"questions"}))
    assert taken([line(1_000), line(1_000, key="questions")], only) == [0, 100]


def test_money_13_an_amount_in_another_currency_takes_nothing() -> None:
    draws = rules.coupons_off([line(500)], [redemption(1, amount=100)], {}, currency="eur")
    assert draws == [[]]


def grant(
    number: int, left: int, *, starts: str = "2025-01-01", expires: str | None = None
) -> Grant:
    return Grant(UUID(int=number), at(starts), None if expires is None else at(expires), left)


def drawn(
    lines: list[Discountable], room: dict[object, int], *grants: Grant
) -> tuple[list[int], list[int]]:
    draws, after = rules.grants_off(lines, grants, room, currency="usd")
    return [sum(draw.amount for draw in some) for some in draws], [one.left for one in after]


def test_credit_is_drawn_in_order_until_nothing_is_left_to_take_from() -> None:
    assert drawn([line(700)], {"s": 700}, grant(1, 500), grant(2, 500)) == ([700], [0, 300])


def test_credit_of_which_more_was_drawn_than_there_is_takes_nothing_and_adds_nothing() -> None:
    assert drawn([line(700)], {"s": 700}, grant(1, -310), grant(2, 500)) == ([500], [-310, 0])
    assert drawn([], {}, grant(1, -310)) == ([], [-310])


def test_the_time_of_a_line_decides_whether_credit_covers_it() -> None:
    lines = [line(100), line(100, "2025-02-28")]
    assert drawn(lines, {"s": 200}, grant(1, 500, expires="2025-02-28")) == ([100, 0], [400])
    assert drawn(lines, {"s": 200}, grant(1, 500, starts="2025-03-01")) == ([0, 100], [400])


def test_credit_leaves_what_a_reduction_of_the_same_invoice_takes_back() -> None:
    lines = [line(100), line(50, group="r")]
    assert drawn(lines, {"s": 30, "r": 50}, grant(1, 500)) == ([30, 50], [420])
    assert drawn(lines, {"s": 30, "r": 50}, grant(1, 40)) == ([15, 25], [0])


def test_the_span_of_a_coupon_follows_its_duration() -> None:
    calendar = Calendar(ANCHOR, "Europe/Rome", Interval.MONTH)

    def last(duration: Duration, periods: int | None = None) -> int | None:
        terms = Terms("CODE", "Code", percent=Decimal(1), duration=duration, periods=periods)
        return rules.span_of(terms, calendar, first=3).last

    assert last(Duration.ONCE) == 3
    assert last(Duration.REPEATING, 4) == 6
    assert last(Duration.FOREVER) is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"code": "no blanks"}, "code"),
        ({"name": " "}, "name"),
        ({"percent": None}, "percent"),
        ({"percent": Decimal(0)}, "percent"),
        ({"percent": Decimal("100.1")}, "percent"),
        ({"percent": Decimal("1.1234567")}, "percent"),
        ({"amount": 5, "currency": "usd"}, "percent"),
        ({"percent": None, "amount": 5}, "percent"),
        ({"percent": None, "amount": 0, "currency": "usd"}, "amount"),
        ({"percent": None, "amount": 10**15 + 1, "currency": "usd"}, "amount"),
        ({"percent": None, "amount": 5, "currency": "zzz"}, "currency"),
        ({"duration": Duration.REPEATING}, "periods"),
        ({"periods": 3}, "periods"),
        ({"limit_in_all": 0}, "limit_in_all"),
        ({"limit_customer": 0}, "limit_customer"),
    ],
)
def test_a_coupon_that_makes_no_sense_is_refused_by_the_name_of_the_field(
    given: dict[str, object], field: str
) -> None:
    terms = {"code": "CODE", "name": "Code", "percent": Decimal(10)} | given
    with pytest.raises(Invalid) as error:
        rules.check_terms(Terms(**terms))  # type: ignore[arg-type] # one wrong value a case
    assert error.value.field == field


def test_prices_of_plans_and_prices_by_name_both_narrow_a_coupon() -> None:
    plans = {"pro": ["fee", "questions"]}

    def allowed(**given: tuple[str, ...]) -> frozenset[str] | None:
        terms = Terms("CODE", "Code", percent=Decimal(1), **given)  # type: ignore[arg-type] # names
        return rules.allowed_prices(terms, plans)

    assert allowed() is None
    assert allowed(plans=("pro",)) == frozenset({"fee", "questions"})
    assert allowed(prices=("fee", "other")) == frozenset({"fee", "other"})
    assert allowed(plans=("pro",), prices=("fee", "other")) == frozenset({"fee"})
