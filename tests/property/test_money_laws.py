"""The laws of the billing engine on a real database, with coupons, promotional credit and tax on.

Amounts are chosen so that shares come out whole where a law is exact: a fee of 31.00 in a month of
31 days, usage at 0.50, 10 % off, 20 % tax. Where rounding may play, the law says by how much.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from convergio.billing import actions as billing
from convergio.billing import correcting, redeeming
from convergio.discounts import actions as discounts
from convergio.discounts.model import Duration, Terms
from convergio.entitlements import grants
from convergio.entitlements.model import Category, GrantTerms
from convergio.infra.db import Database
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from convergio.taxes import actions as taxes
from tests.fakes.business import Business, at

CATALOG = b"""
currency: usd
events: [{type: ai.request, keep: []}]
meters: [{key: questions, name: Questions, event: ai.request, value: quantity}]
plans:
  - key: low
    name: Low
    prices:
      - {key: low-fee, name: Low, charge: {model: flat, amount: "31.00"}}
      - {key: low-use, name: Use, meter: questions, charge: {model: unit, unit: "0.50"}}
  - key: high
    name: High
    prices:
      - {key: high-fee, name: High, charge: {model: flat, amount: "93.00"}}
      - {key: high-use, name: Use, meter: questions, charge: {model: unit, unit: "0.50"}}
  - key: odd
    name: Odd
    prices:
      - {key: odd-fee, name: Odd, charge: {model: flat, amount: "9.97"}}
"""
TAXES = b'{seller: IT, registrations: [{country: IT}], rates: [{country: IT, percent: "20"}]}'
START = at("2025-01-01")
Offer = tuple[str, int]
OFFERS = {
    "nothing": (),
    "a tenth off": (("percent", 10),),
    "five off a period": (("amount", 500),),
    "a tenth and five off": (("percent", 10), ("amount", 500)),
    "credit": (("grant", 4_000),),
    "all of them": (("percent", 10), ("amount", 500), ("grant", 4_000)),
}
LAW = settings(  # a failing example is not made smaller: each costs a second of database
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
offers = st.sampled_from(sorted(OFFERS))
days = st.integers(1, 29)


@dataclass
class Stage:
    """One seller; every example has a customer of its own."""

    shop: Business
    numbers: "count[int]"

    def customer(self, offer: str, plan: str = "low") -> tuple[str, UUID]:
        """Return a new customer on a plan with discounts, nothing billed yet."""
        key = f"c{next(self.numbers):04}"
        customer_id = self.shop.customer(key, country="IT")
        self.shop.subscribe(customer_id, plan, "2025-01-01")
        with self.shop.database.transaction() as tx:
            for place, (what, size) in enumerate(OFFERS[offer]):
                if what == "grant":
                    terms = GrantTerms(
                        key=f"grant-{key}", category=Category.PROMOTIONAL, starts_at=START,
                        amount=f"{size / 100:.2f}",
                    )  # fmt: skip
                    grants.create(tx, key, terms, now=self.shop.now)
                    continue
                code = f"{key.upper()}-{place}"
                percent = Decimal(size) if what == "percent" else None
                amount = size if what == "amount" else None
                coupon = Terms(
                    code, code, percent, amount, None if amount is None else "usd", Duration.FOREVER
                )
                discounts.create(tx, coupon, now=self.shop.now)
                moment = START + timedelta(seconds=place)  # the order of use
                redeeming.redeem(tx, customer_id=customer_id, code=code, now=moment)
        return key, customer_id

    def change(self, customer_id: UUID, plan: str, moment: datetime) -> None:
        with self.shop.database.transaction() as tx:
            changes.change(tx, customer_id=customer_id, plan_key=plan, when=When.NOW, now=moment)

    def run(self, moment: datetime) -> None:
        """Bill without grace, twice: the second time there is nothing left."""
        text = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        for turn in range(2):
            report = self.shop.bill(text, now=max(moment, self.shop.now), grace=timedelta(0))
            assert report.problems == []
            assert not turn or (report.invoices, report.credit_notes) == (0, 0)

    def sums(self, customer_id: UUID) -> tuple[int, ...]:
        """Return subtotal, discount, tax and total of all that a customer was billed."""
        with self.shop.database.transaction() as tx:
            notes = correcting.notes(tx, customer_id=customer_id)
            found = billing.page(tx, customer_id=customer_id, limit=1_000)
        return tuple(
            sum(getattr(one, name) for one in found) - sum(getattr(one, name) for one in notes)
            for name in ("subtotal", "discount", "tax", "total")
        )

    def worth(self, customer_id: UUID) -> tuple[int, ...]:
        """Return the sums as if what is left of promotional credit were drawn: it is not lost."""
        subtotal, discount, tax, total = self.sums(customer_id)
        with self.shop.database.transaction() as tx:
            credit = grants.in_money(tx, [customer_id]).get(customer_id, [])
            spent = discounts.drawn_of_grants(tx, [customer_id])
        left = sum((one.amount or 0) - spent.get(one.grant_id, 0) for one in credit)
        return subtotal, discount + left, tax - left // 5, total - left - left // 5

    def check(self, customer_id: UUID) -> None:
        """Say that lines, invoices, draws and transfers agree, and that the books balance."""
        assert self.shop.verify() == []
        subtotal, discount, tax, total = self.sums(customer_id)
        with self.shop.database.transaction() as tx:
            rows = tx.tuples(
                "SELECT account, sum(minor) FROM ("
                " SELECT debit_account AS account, amount AS minor FROM ledger_transfer"
                " WHERE customer_id = %(who)s UNION ALL"
                " SELECT credit_account, -amount FROM ledger_transfer"
                " WHERE customer_id = %(who)s) AS every GROUP BY account",
                who=customer_id,
            )
        books = {account: int(minor) for account, minor in rows}
        assert sum(books.values()) == 0
        earned = books.get("deferred_revenue", 0) + books.get("usage_revenue", 0)
        assert (-earned, -books.get("tax_payable", 0)) == (subtotal - discount, tax)
        assert subtotal - discount + tax == total
        owed = books.get("receivable", 0) + books.get("customer_credit", 0)
        assert owed == total


@pytest.fixture
def stage(database: Database, now: datetime) -> Stage:
    shop = Business(database, now, CATALOG)
    with database.transaction() as tx:
        taxes.apply(tx, TAXES, now=now)
    return Stage(shop, count())


def rounding(offer: str) -> int:
    """Return how far the tax on what is left of credit may be off: it is rounded apart."""
    return 2 if any(what == "grant" for what, _ in OFFERS[offer]) else 0


def assert_near(found: Iterable[int], expected: Iterable[int], *, by: int) -> None:
    pairs = list(zip(found, expected, strict=True))
    assert all(abs(one - other) <= by for one, other in pairs), pairs


def on(day: int, hour: int = 0) -> datetime:
    return START + timedelta(days=day, hours=hour)


@LAW
@given(offer=offers, day=days, is_billed=st.booleans(), is_run_between=st.booleans())
def test_up_and_down_in_one_instant_nets_to_nothing(
    stage: Stage, offer: str, day: int, is_billed: bool, is_run_between: bool
) -> None:
    _, changed = stage.customer(offer)
    _, still = stage.customer(offer)
    if is_billed:
        stage.run(START)
    stage.change(changed, "high", on(day))
    if is_run_between:
        stage.run(on(day))
    stage.change(changed, "low", on(day))
    stage.run(on(day))
    stage.run(at("2025-02-01"))
    assert_near(stage.worth(changed), stage.worth(still), by=rounding(offer))
    stage.check(changed)


@LAW
@given(
    offer=offers, cuts=st.lists(days, min_size=1, max_size=5, unique=True).map(sorted),
    is_odd=st.booleans(),
)  # fmt: skip
def test_the_parts_of_a_period_sum_to_the_whole(
    stage: Stage, offer: str, cuts: list[int], is_odd: bool
) -> None:
    """However often a plan ends and begins again within a period, it is billed once in all."""
    plan = "odd" if is_odd else "low"
    _, changed = stage.customer(offer, plan)
    _, whole = stage.customer(offer, plan)
    stage.run(START)
    for day in cuts:
        stage.change(changed, "high", on(day))
        stage.change(changed, plan, on(day))
        stage.run(on(day))
    by = 2 * len(cuts) if is_odd else rounding(offer)
    assert_near(stage.worth(changed), stage.worth(whole), by=by)
    stage.check(changed)


@LAW
@given(
    offer=offers,
    moves=st.lists(
        st.tuples(days, st.sampled_from(["low", "high", "odd"])), min_size=1, max_size=5
    ),
    runs=st.lists(days, max_size=4),
)
def test_a_coupon_of_an_amount_gives_it_once_a_period_whatever_changes(
    stage: Stage, offer: str, moves: list[tuple[int, str]], runs: list[int]
) -> None:
    _, customer_id = stage.customer(offer)
    stage.run(START)
    todo = sorted([(day, 0, plan) for day, plan in moves] + [(day, 1, "") for day in runs])
    here = "low"
    for day, is_run, plan in todo:
        if is_run:
            stage.run(on(day, hour=1))
        elif plan != here:
            stage.change(customer_id, plan, on(day))
            here = plan
    stage.run(at("2025-01-31"))
    if ("amount", 500) in OFFERS[offer]:
        with stage.shop.database.transaction() as tx:
            found = tx.value(
                "SELECT sum(d.amount - d.returned) FROM coupon_draw AS d"
                " JOIN coupon_redemption USING (customer_id, redemption_id)"
                " JOIN coupon AS c USING (coupon_id)"
                " WHERE c.amount IS NOT NULL AND d.customer_id = %(who)s",
                who=customer_id,
            )
        assert found == 500
    subtotal, discount, _, _ = stage.sums(customer_id)
    if offer == "a tenth off":
        assert abs(discount * 10 - subtotal) <= 10 * (len(moves) * 2 + 1)
    stage.check(customer_id)


events = st.lists(
    st.tuples(st.integers(1, 85), st.integers(0, 58), st.integers(1, 40)), min_size=1, max_size=6
)


@LAW
@given(offer=offers, used=events, random=st.randoms(use_true_random=False))
def test_any_order_of_late_events_and_runs_gives_the_same_balance(
    stage: Stage, offer: str, used: list[tuple[int, int, int]], random: object
) -> None:
    """Each is (the day it arrives, the day it is of, how many): one customer hears of them late."""
    key, late = stage.customer(offer)
    mixed_key, mixed = stage.customer(offer)
    other, early = stage.customer(offer)
    for _, day, quantity in used:
        stage.shop.use(other, quantity, f"{on(day):%Y-%m-%d}")
    shuffled = [day for day, _, _ in used]
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis's own Random
    arrivals: list[tuple[int, Callable[[], None]]] = [
        (day, _run(stage, day)) for day in (0, 31, 59)
    ]
    for (arrives, day, quantity), again in zip(used, shuffled, strict=True):
        arrivals.append((max(arrives, day), _use(stage, key, day, quantity)))
        arrivals.append((max(again, day), _use(stage, mixed_key, day, quantity)))
    for _, act in sorted(arrivals, key=lambda one: one[0]):
        act()
    stage.run(on(90))
    assert stage.sums(late) == stage.sums(mixed) == stage.sums(early)
    stage.check(late)


def _use(stage: Stage, key: str, day: int, quantity: int) -> Callable[[], None]:
    return lambda: stage.shop.use(key, quantity, f"{on(day):%Y-%m-%d}")


def _run(stage: Stage, day: int) -> Callable[[], None]:
    return lambda: stage.run(on(day))
