"""Whatever the lines: groups add up, discounts never exceed, credit notes close the cent."""

from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from convergio.billing import bearing, crediting
from convergio.billing.model import Bearing, Creditable, CreditLine, Kind
from convergio.discounts import rules
from convergio.discounts.model import Discountable, Draw, Grant, Redemption, Span
from convergio.kernel.money import Money
from convergio.kernel.periods import Interval
from convergio.rating.taxing import GroupKey, Priced, Treatment, tax_groups, tax_of
from tests.fakes.business import at

CUSTOMER = UUID(int=7)
amounts = st.integers(0, 10**7)
percents = st.decimals(0, 100, places=3, allow_nan=False, allow_infinity=False)
keys = st.builds(
    GroupKey,
    st.sampled_from(["standard", "reduced"]),
    percents,
    st.just(Treatment.STANDARD),
    st.booleans(),
)


@given(st.lists(st.tuples(st.integers(-(10**6), 10**7), keys), min_size=1, max_size=12))
def test_net_and_tax_of_the_groups_are_what_is_to_be_paid(
    lines: list[tuple[int, GroupKey]],
) -> None:
    rows = tax_groups(Priced(Money(minor, "eur"), key) for minor, key in lines)
    inside = sum(minor for minor, key in lines if key.inclusive)
    beside = sum(minor for minor, key in lines if not key.inclusive)
    tax = sum(row.tax for row in rows if not row.inclusive)
    assert sum(row.net + row.tax for row in rows) == inside + beside + tax
    assert len({row.key for row in rows}) == len(rows)
    for row in rows:
        exact = Decimal(row.priced) * row.rate / (100 + row.rate * row.inclusive)
        assert abs(Decimal(row.tax) - exact) <= Decimal("0.5")


def item(amount: int) -> Discountable:
    return Discountable(amount, "fee", at("2025-01-01"), at("2025-02-01"), amount % 2)


def redeemed(number: int, percent: Decimal | None, amount: int | None) -> Redemption:
    return Redemption(
        CUSTOMER, UUID(int=number), UUID(int=1), "CODE", "Code", percent, amount,
        None if amount is None else "eur", at("2025-01-01"),
        Span(at("2025-01-01"), "UTC", Interval.MONTH, 0, None), None,
    )  # fmt: skip


@given(
    st.lists(amounts, max_size=8),
    st.lists(st.one_of(percents.filter(bool), st.integers(1, 10**6)), max_size=4),
    st.lists(st.integers(1, 10**6), max_size=3),
    st.integers(0, 10**6),
)
def test_coupons_and_credit_never_take_more_than_a_line_a_group_or_a_grant_has(
    lines: list[int], offs: list[Decimal | int], grants: list[int], below: int
) -> None:
    items = [item(amount) for amount in lines]
    every = [
        redeemed(
            n, off if isinstance(off, Decimal) else None, off if isinstance(off, int) else None
        )
        for n, off in enumerate(offs)
    ]
    spent: dict[tuple[UUID, int], int] = {}
    coupons = rules.coupons_off(items, every, spent, currency="eur")
    taken = [sum(draw.amount for draw in draws) for draws in coupons]
    assert all(0 <= off <= one for off, one in zip(taken, lines, strict=True))
    for one in every:
        assert one.amount is None or spent.get((one.redemption_id, 0), 0) <= one.amount
    left = [one._replace(amount=one.amount - off) for one, off in zip(items, taken, strict=True)]
    room: dict[object, int] = {0: 0, 1: 0}
    for part in left:
        room[part.group] += part.amount
    room[0] = max(0, room[0] - below)
    credit = [Grant(UUID(int=n), at("2025-01-01"), None, some) for n, some in enumerate(grants)]
    draws, after = rules.grants_off(left, credit, room, currency="eur")
    drawn = [sum(draw.amount for draw in some) for some in draws]
    assert all(0 <= off <= one.amount for off, one in zip(drawn, left, strict=True))
    assert sum(drawn) == sum(grants) - sum(one.left for one in after)
    assert sum(drawn) == min(sum(grants), sum(room.values()))
    for group, most in room.items():
        total = sum(off for off, one in zip(drawn, left, strict=True) if one.group == group)
        assert total <= most


def creditable(amount: int, discount: int, key: GroupKey) -> Creditable:
    return Creditable(
        CUSTOMER, CUSTOMER, 1, CUSTOMER, at("2025-01-01"), Kind.FIXED, "", "Fee", "eur", amount,
        discount, *key,
    )  # fmt: skip


@given(
    st.integers(1, 10**6), st.integers(0, 100), st.lists(st.integers(1, 10**6), max_size=6), keys
)
def test_credit_notes_over_any_parts_give_back_what_the_invoice_took_to_the_cent(
    amount: int, off: int, wanted: list[int], key: GroupKey
) -> None:
    discount = amount * off // 100
    row = creditable(amount, discount, key)
    credited = bearing.Credited()
    net = tax = 0
    for some in [*wanted, amount]:
        part = min(some, row.remaining)
        if not part:
            break
        bears = bearing.share(row, part)
        assert 0 <= bears.discount <= part
        line = CreditLine(1, Kind.FIXED, "Fee", Decimal(1), Money(part, "eur"), bears)
        (given_back,) = credited.take(CUSTOMER, [line])
        net += given_back.priced
        tax += given_back.tax
        row = creditable(row.remaining - part, row.discount_left - bears.discount, key)
    assert (net, row.discount_left) == (amount - discount, 0)
    assert tax == tax_of(Money(amount - discount, "eur"), key.rate, inclusive=key.inclusive).minor


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), amounts, keys), min_size=1, max_size=8))
def test_what_lines_earn_is_what_is_to_be_paid_less_the_tax(
    lines: list[tuple[Kind, int, GroupKey]],
) -> None:
    parts = [
        CreditLine(1, kind, "Fee", Decimal(1), Money(minor, "eur"), Bearing(0, *key))
        for kind, minor, key in lines
    ]
    rows = tax_groups(Priced(bearing.net_of(one), one.bearing.group) for one in parts)
    earned = bearing.earned_by(parts, rows, "eur")
    assert sum(earned.values()) == sum(row.net for row in rows)


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=5),
    st.lists(st.integers(1, 10**6), max_size=8),
    st.booleans(),
)
def test_what_comes_back_of_a_discount_goes_to_what_took_it_and_never_beyond(
    took: list[int], parts: list[int], is_undone: bool
) -> None:
    """In any parts: each adds up, nobody gets more than it took, and the last closes the cent."""
    place, sign = (CUSTOMER, 1), -1 if is_undone else 1
    draws = [Draw(UUID(int=number), number, sign * part) for number, part in enumerate(took)]
    taken = {place: draws}
    back = dict.fromkeys(range(len(took)), 0)
    for part in [*parts, sum(took)]:
        left = sum(abs(one.amount) for one in taken[place])
        size = min(part, left)
        found = crediting.returned(taken, place, sign * size)
        assert sum(one.amount for one in found) == sign * size
        for one in found:
            assert one.period_number is not None
            back[one.period_number] += abs(one.amount)
            assert back[one.period_number] <= took[one.period_number]
        assert sum(abs(one.amount) for one in taken[place]) == left - size
    assert list(back.values()) == took
    assert crediting.returned(taken, place, 1) == ()
