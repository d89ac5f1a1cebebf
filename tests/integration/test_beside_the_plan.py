"""Add-ons, setup fees, one-off charges, several currencies, negotiated prices and ramps."""

from datetime import datetime
from decimal import Decimal

import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting
from convergio.catalog import actions as catalog
from convergio.catalog.model import Quota
from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, ConvergioError, Invalid, NotFound
from convergio.kernel.money import Money
from convergio.rating.model import Flat, Seat, Unit
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import adding, changes, negotiating, repricing
from convergio.subscriptions.model import Subscription, Trial, TrialPolicy, When
from tests.fakes.business import Business, at

CATALOG = b"""
currency: usd
events:
  - type: ai.request
meters:
  - {key: questions, name: Questions, event: ai.request, value: quantity, default: 1}
plans:
  - key: solo
    name: Solo
    prices:
      - {key: setup, name: Setup, once: true, charge: {model: flat, amount: 49},
         currencies: {eur: {model: flat, amount: 45}}}
      - {key: fee, name: Fee, charge: {model: flat, amount: 10},
         currencies: {eur: {model: flat, amount: 9}}}
      - {key: use, name: Questions, meter: questions,
         charge: {model: unit, unit: 0.10, included: 100},
         currencies: {eur: {model: unit, unit: 0.09, included: 100}}}
  - key: duo
    name: Duo
    prices:
      - {key: duo_setup, name: Setup of Duo, once: true, charge: {model: flat, amount: 99}}
      - {key: duo_fee, name: Fee, charge: {model: flat, amount: 31}}
  - key: support
    name: Support
    add_on: true
    prices:
      - {key: support, name: Support, charge: {model: seat, unit: 3.10},
         currencies: {eur: {model: seat, unit: 3}}}
"""


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now, CATALOG)


def take(shop: Business, when: str, quantity: int = 1, how: When = When.NOW) -> Subscription:
    with shop.database.transaction() as tx:
        return adding.set_add_on(
            tx, customer_id=customers.find(tx, "acme").customer_id, key="support",
            quantity=quantity, when=how, now=at(when),
        )  # fmt: skip


def agree(shop: Business, when: str, *steps: negotiating.Step) -> None:
    with shop.database.transaction() as tx:
        acme = customers.find(tx, "acme").customer_id
        negotiating.agree(tx, customer_id=acme, steps_=steps, now=at(when))


def fee(amount: str, when: str | None = None) -> negotiating.Step:
    terms = {"fee": negotiating.Terms(Flat(amount=amount))}
    return negotiating.Step(None if when is None else at(when), terms)


def billed(shop: Business) -> list[tuple[str, int]]:
    """What all invoices say, line by line: the name and the amount."""
    with shop.database.transaction() as tx:
        views = [billing.read(tx, shop.keyring, one) for one in shop.invoices()]
    return [(line.description, line.amount) for view in views for line in view.lines]


def test_a_setup_fee_is_asked_once_and_never_again(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-11-01")
    shop.bill("2024-12-02")
    shop.bill("2025-01-02")
    assert sorted(billed(shop)) == [
        ("Fee", 1_000),
        ("Fee", 1_000),
        ("Fee", 1_000),
        ("Setup", 4_900),
    ]
    assert shop.verify() == []


def test_another_plan_asks_its_own_setup_fee_and_coming_back_asks_none(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-11-01")
    shop.bill("2024-11-02")
    for plan, when in (("duo", "2024-12-01"), ("solo", "2025-01-01")):
        with shop.database.transaction() as tx:
            changes.change(tx, customer_id=acme, plan_key=plan, when=When.NOW, now=at(when))
    shop.bill("2025-01-02")
    fees = [name for name, _ in billed(shop) if name.startswith("Setup")]
    assert fees == ["Setup", "Setup of Duo"]
    assert shop.verify() == []


def test_a_trial_that_ends_before_it_is_paid_owes_no_setup_fee(shop: Business) -> None:
    acme = shop.customer("acme")
    with shop.database.transaction() as tx:
        subscriptions.create(
            tx, customer_id=acme, plan_key="solo", start=at("2024-11-01"), now=at("2024-11-01"),
            trial=Trial(14),
        )  # fmt: skip
    shop.cancel(acme, "2024-11-10", at_period_end=False)
    shop.bill("2024-12-02")
    assert billed(shop) == []


def test_a_customer_pays_in_the_currency_of_the_account(shop: Business) -> None:
    with shop.database.transaction() as tx:
        bella = customers.create(tx, shop.keyring, key="bella", now=shop.now, currency="eur")
    shop.subscribe(bella.customer_id, "solo", "2024-11-01")
    shop.use("bella", 150, "2024-11-05")
    shop.bill("2024-12-02")
    expected = [("Fee", 900), ("Fee", 900), ("Questions", 450), ("Setup", 4_500)]
    assert sorted(billed(shop)) == expected
    assert {one.currency for one in shop.invoices()} == {"eur"}
    with shop.database.transaction() as tx, pytest.raises(ConvergioError, match="priced in usd"):
        changes.change(tx, customer_id=bella.customer_id, plan_key="duo", now=at("2024-12-03"))


def test_an_add_on_is_charged_for_its_time_and_gives_back_the_rest(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "solo", "2024-12-01")
    shop.bill("2024-12-02")
    take(shop, "2024-12-11", 2)
    shop.bill("2025-01-02")
    assert ("Support", 2 * 210) in billed(shop)  # 21 of 31 days of two at 3.10
    take(shop, "2025-01-11", 0)
    shop.bill("2025-02-02")
    with shop.database.transaction() as tx:
        acme = customers.find(tx, "acme").customer_id
        notes = correcting.notes(tx, customer_id=acme, limit=10)
    assert [(one.total, one.reason) for one in notes] == [(2 * 210, "credit: Support removed")]
    assert shop.verify() == []


def test_an_add_on_that_ends_with_the_period_gives_nothing_back(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "solo", "2024-12-01")
    take(shop, "2024-12-01")
    take(shop, "2024-12-15", 0, When.PERIOD_END)
    shop.bill("2025-02-02")
    assert [name for name, _ in billed(shop)].count("Support") == 1
    assert shop.verify() == []


def test_an_add_on_outlives_a_change_of_plan_a_pause_and_new_periods(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    take(shop, "2024-12-01", 3)
    for when, verb in (("2024-12-10", changes.pause), ("2024-12-20", changes.resume)):
        with shop.database.transaction() as tx:
            verb(tx, customer_id=acme, now=at(when))
    with shop.database.transaction() as tx:
        live = changes.change(
            tx, customer_id=acme, plan_key="duo", when=When.NOW, now=at("2024-12-25")
        )
        assert adding.add_ons(tx, live) == {"support": "3"}
    shop.bill("2025-01-02")
    assert billed(shop).count(("Support", 930)) == 1  # of January, beside Duo
    assert shop.verify() == []


@pytest.mark.parametrize(
    ("key", "quantity", "code", "field"),
    [("solo", 1, "not_an_add_on", "add_on"), ("nothing", 1, "unknown_add_on", "add_on"),
     ("support", -1, "bad_quantity", "quantity"), ("support", 0, "nothing_to_change", "quantity"),
     ("support", 2_000_000, "bad_quantity", "quantity")],
)  # fmt: skip
def test_what_is_no_add_on_is_refused(
    shop: Business, key: str, quantity: int, code: str, field: str
) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    with shop.database.transaction() as tx, pytest.raises(ConvergioError) as caught:
        adding.set_add_on(tx, customer_id=acme, key=key, quantity=quantity, now=at("2024-12-02"))
    assert (caught.value.code, caught.value.field) == (code, field)


def test_an_add_on_alone_is_no_plan(shop: Business) -> None:
    with pytest.raises(Invalid, match="is an add-on"):
        shop.subscribe(shop.customer("acme"), "support", "2024-12-01")


def test_a_one_off_charge_is_on_the_next_invoice_once(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    shop.bill("2024-12-02")
    with shop.database.transaction() as tx:
        adding.charge_once(
            tx, customer_id=acme, description="Onboarding", amount=Money.parse("250.00", "usd"),
            now=at("2024-12-10"),
        )  # fmt: skip
    shop.bill("2024-12-11")
    assert len(shop.invoices()) == 1
    shop.bill("2025-01-02")
    shop.bill("2025-02-02")
    assert billed(shop).count(("Onboarding", 25_000)) == 1
    assert [one.total for one in shop.invoices()] == [5_900, 26_000, 1_000]
    with shop.database.transaction() as tx:
        assert not any("@" in p.key for p in catalog.current(tx).prices_by_id.values())
    assert shop.verify() == []
    with shop.database.transaction() as tx, pytest.raises(Conflict, match="pays in usd"):
        adding.charge_once(
            tx, customer_id=acme, description="x", amount=Money.parse("1.00", "eur"), now=shop.now
        )


def test_a_one_off_charge_can_be_asked_now_and_is_owed_by_who_leaves(shop: Business) -> None:
    for key, when in (("now", When.NOW), ("leaves", When.PERIOD_END)):
        one = shop.customer(key)
        shop.subscribe(one, "solo", "2024-12-01")
        shop.bill("2024-12-02")
        with shop.database.transaction() as tx:
            adding.charge_once(
                tx, customer_id=one, description=key, amount=Money.parse("7.00", "usd"),
                when=when, now=at("2024-12-10"),
            )  # fmt: skip
        shop.cancel(one, "2024-12-20", at_period_end=False)
    shop.bill("2024-12-21")
    assert [row for row in billed(shop) if row[1] == 700] == [("now", 700)]
    shop.bill("2025-01-02")
    assert sorted(row for row in billed(shop) if row[1] == 700) == [("leaves", 700), ("now", 700)]
    assert shop.verify() == []


def test_a_negotiated_price_takes_the_place_of_the_plans(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    terms = {
        "fee": negotiating.Terms(Flat(amount="8")),
        "use": negotiating.Terms(Unit(unit="0.05", included="100")),
    }
    agree(shop, "2024-12-01", negotiating.Step(None, terms))
    shop.use("acme", 300, "2024-12-05")
    shop.bill("2025-01-02")
    assert sorted(billed(shop)) == [("Fee", 800), ("Fee", 800), ("Questions", 1_000),
                                    ("Setup", 4_900)]  # fmt: skip
    other = shop.customer("other")
    shop.subscribe(other, "solo", "2024-12-01")
    shop.bill("2025-01-03")
    assert billed(shop)[-1] == ("Fee", 1_000)
    assert shop.verify() == []


def test_a_ramp_changes_the_price_at_each_step_also_in_one_late_run(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-10-01")
    agree(shop, "2024-10-01", fee("0"), fee("5", "2024-11-01"), fee("7.50", "2024-12-01"))
    shop.bill("2025-01-02")
    amounts = [amount for name, amount in billed(shop) if name == "Fee"]
    assert amounts == [500, 750, 750]
    assert shop.verify() == []


def test_a_ramp_in_small_runs_bills_the_same(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-10-01")
    agree(shop, "2024-10-01", fee("0"), fee("5", "2024-11-01"), fee("7.50", "2024-12-01"))
    for day in ("2024-10-02", "2024-11-02", "2024-11-20", "2024-12-02", "2025-01-02"):
        shop.bill(day)
    amounts = [amount for name, amount in billed(shop) if name == "Fee"]
    assert amounts == [500, 750, 750]
    assert shop.verify() == []


def test_another_plan_ends_a_ramp_and_a_change_to_come_is_refused_beside_it(
    shop: Business,
) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    agree(shop, "2024-12-01", fee("5", "2025-01-01"), fee("7", "2025-02-01"))
    with shop.database.transaction() as tx, pytest.raises(Conflict, match="ramp"):
        changes.change(
            tx, customer_id=acme, plan_key="duo", when=When.PERIOD_END, now=at("2024-12-05")
        )
    with shop.database.transaction() as tx:
        live = changes.change(
            tx, customer_id=acme, plan_key="duo", when=When.NOW, now=at("2024-12-05")
        )
        assert changes.ramp(tx, live) == []
    shop.bill("2025-02-02")
    assert ("Fee", 3_100) in billed(shop)
    assert ("Fee", 500) not in billed(shop)


def test_an_agreement_does_not_drop_a_change_to_come(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    with shop.database.transaction() as tx:
        changes.change(
            tx, customer_id=acme, plan_key="duo", when=When.PERIOD_END, now=at("2024-12-05")
        )
    with pytest.raises(Conflict, match="drop it first"):
        agree(shop, "2024-12-06", fee("5"))


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([], "1 to 60 steps"),
        ([negotiating.Step(None, {})], "changes no price"),
        ([fee("5", "2024-11-01")], "too early"),
        ([fee("5", "2025-02-01"), fee("6", "2025-01-01")], "too early"),
        ([fee("5", "2025-02-01"), fee("6")], "only the first"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(
    shop: Business, steps: list[negotiating.Step], error: str
) -> None:
    shop.subscribe(shop.customer("acme"), "solo", "2024-12-01")
    with pytest.raises(Invalid, match=error):
        agree(shop, "2024-12-01", *steps)


def test_a_price_that_the_plan_lacks_is_named(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "solo", "2024-12-01")
    step = negotiating.Step(None, {"nothing": negotiating.Terms(Flat(amount="1"))})
    with pytest.raises(NotFound, match="'nothing'"):
        agree(shop, "2024-12-01", step)


VALUES = b"""
currency: usd
events: [{type: ai.request}]
meters:
  - {key: tokens, name: Tokens, event: ai.request, value: tokens, default: 1, group_by: [model]}
  - {key: users, name: Users, event: ai.request, aggregation: unique_count, value: user}
plans:
  - key: pro
    name: Pro
    prices:
      - {key: fee, name: Fee, charge: {model: flat, amount: 10}}
      - {key: tokens, name: Tokens, meter: tokens, charge: {model: unit, unit: 1}, by: model,
         charges: {large: {model: unit, unit: 2}}}
      - {key: users, name: Users, meter: users, charge: {model: unit, unit: 1}}
"""


@pytest.mark.parametrize(
    ("key", "terms", "refusal"),
    [
        ("tokens", negotiating.Terms(Unit(unit="1"), None, {"large": Flat(amount="5")}),
         ("mixed_models", "charges.large.model")),
        ("tokens", negotiating.Terms(Unit(unit="1"), None, {"large": Seat(unit="5")}),
         ("mixed_models", "charges.large.model")),
        ("users", negotiating.Terms(Unit(unit="1"), Quota(Decimal(5), hard=True)),
         ("unenforceable_quota", "quota.hard")),
        ("fee", negotiating.Terms(Unit(unit="1", included="1", included_per_seat=True)),
         ("seats_without_meter", "charge.included_per_seat")),
        ("tokens", negotiating.Terms(Seat(unit="1")), ("seat_with_meter", "charge")),
    ],
)  # fmt: skip
def test_nothing_is_agreed_that_the_catalog_would_refuse(
    database: Database, now: datetime, key: str, terms: negotiating.Terms, refusal: tuple[str, str]
) -> None:
    shop = Business(database, now, VALUES)
    shop.subscribe(shop.customer("acme"), "pro", "2024-12-01")
    with pytest.raises(Invalid) as refused:
        agree(shop, "2024-12-02", negotiating.Step(None, {key: terms}))
    assert (refused.value.code, refused.value.field) == refusal


def test_a_soft_limit_of_distinct_values_can_be_agreed(database: Database, now: datetime) -> None:
    shop = Business(database, now, VALUES)
    shop.subscribe(shop.customer("acme"), "pro", "2024-12-01")
    soft = negotiating.Terms(Unit(unit="1"), Quota(Decimal(5), hard=False))
    agree(shop, "2024-12-02", negotiating.Step(None, {"users": soft}))


def new_version(shop: Business) -> None:
    """Sell the fee of Solo for 12 from now on."""
    wanted = CATALOG.replace(b"{key: fee, name: Fee, charge: {model: flat, amount: 10},",
                             b"{key: fee, version: 2, name: Fee, charge: {model: flat, amount: 12},"
                             )  # fmt: skip
    with shop.database.transaction() as tx:
        catalog.apply(tx, wanted, now=at("2024-12-15"))


def migrate(
    shop: Business, since: str, version: int = 2, key: str = "fee",
    can_pay: subscriptions.CanPay | None = None,
) -> repricing.Moved:  # fmt: skip
    return repricing.migrate(
        shop.database, price_key=key, version=version, since=at(since), now=at("2024-12-15"),
        can_pay=can_pay,
    )  # fmt: skip


def sell(shop: Business, source: bytes) -> None:
    with shop.database.transaction() as tx:
        catalog.apply(tx, source, now=at("2024-12-15"))


def test_a_new_version_moves_nobody_until_it_is_asked_to_and_then_at_a_boundary(
    shop: Business,
) -> None:
    shop.subscribe(shop.customer("acme"), "solo", "2024-11-10")
    new_version(shop)
    shop.bill("2024-12-16")
    assert migrate(shop, "2025-01-15") == repricing.Moved(changing=1)
    shop.bill("2025-03-12")
    fees = [amount for name, amount in billed(shop) if name == "Fee"]
    assert fees == [1_000, 1_000, 1_000, 1_200, 1_200]
    assert migrate(shop, "2025-01-15") == repricing.Moved(changing=0)
    assert shop.verify() == []


def test_who_has_an_own_price_or_a_change_to_come_is_left_and_named(shop: Business) -> None:
    own, waits, plain = (shop.customer(key) for key in ("own", "waits", "plain"))
    for one in (own, waits, plain):
        shop.subscribe(one, "solo", "2024-12-01")
    with shop.database.transaction() as tx:
        negotiating.agree(tx, customer_id=own, steps_=[fee("5")], now=at("2024-12-02"))
        changes.change(
            tx, customer_id=waits, plan_key="duo", when=When.PERIOD_END, now=at("2024-12-02")
        )
    new_version(shop)
    moved = migrate(shop, "2025-01-01")
    assert (moved.changing, list(moved.left)) == (1, [waits])
    assert "drop it first" in moved.left[waits]


def test_what_was_due_and_no_run_had_carried_out_counts_before_a_migration(shop: Business) -> None:
    came, went = shop.customer("came"), shop.customer("went")
    shop.subscribe(came, "duo", "2024-11-10")
    shop.subscribe(went, "solo", "2024-11-10")
    with shop.database.transaction() as tx:
        for one, plan in ((came, "solo"), (went, "duo")):
            changes.change(
                tx, customer_id=one, plan_key=plan, when=When.PERIOD_END, now=at("2024-11-20")
            )
    new_version(shop)
    assert migrate(shop, "2024-12-15") == repricing.Moved(changing=1)
    shop.bill("2025-02-12")
    fees = sorted(amount for name, amount in billed(shop) if name == "Fee")
    assert fees == [1_000, 1_000, 1_200, 1_200, 3_100, 3_100, 3_100, 3_100]


def test_a_change_to_an_older_version_that_is_still_to_come_is_named(shop: Business) -> None:
    waits = shop.customer("waits")
    shop.subscribe(waits, "duo", "2024-12-01")
    with shop.database.transaction() as tx:
        changes.change(
            tx, customer_id=waits, plan_key="solo", when=When.PERIOD_END, now=at("2024-12-02")
        )
    new_version(shop)
    moved = migrate(shop, "2025-01-01")
    assert (moved.changing, list(moved.left)) == (0, [waits])


def test_a_version_that_does_not_exist_is_refused(shop: Business) -> None:
    with pytest.raises(NotFound, match="no version 9"):
        migrate(shop, "2025-01-01", version=9)


def test_a_version_that_no_plan_sells_any_more_is_refused(shop: Business) -> None:
    acme, other = shop.customer("acme"), shop.customer("other")
    shop.subscribe(acme, "solo", "2024-12-01")
    new_version(shop)
    shop.subscribe(other, "solo", "2024-12-15")  # so that version 2 is kept
    newest = b"{key: fee, version: 3, name: Fee, charge: {model: flat, amount: 13},"
    sell(shop, CATALOG.replace(b"{key: fee, name: Fee, charge: {model: flat, amount: 10},", newest))
    with pytest.raises(Invalid, match="no plan sells version 2"):
        migrate(shop, "2025-01-01")
    assert migrate(shop, "2025-01-01", version=3) == repricing.Moved(changing=2)


SOLO = """
currency: usd
events: [{type: ai.request}]
meters:
  - {key: asked, name: Asked, event: ai.request, value: quantity, default: 1}
  - {key: drawn, name: Drawn, event: ai.request, value: quantity, default: 1}
plans: [{key: solo, name: Solo, prices: [%s]}]
"""
FEE = "{key: fee, name: Fee, charge: {model: flat, amount: 10}}"
ASKED = "{key: asked, name: Asked, meter: asked, charge: {model: unit, unit: 0.10}}"
DRAWN = "{key: drawn, name: Drawn, meter: drawn, charge: {model: unit, unit: 0.10}}"


def sold(*prices: str) -> bytes:
    return (SOLO % ", ".join(prices)).encode()


@pytest.mark.parametrize(
    ("key", "then", "why"),
    [
        ("fee", FEE.replace("name", "version: 2, currency: eur, name"), "priced in eur"),
        ("asked", ASKED.replace("meter: asked", "version: 2, meter: drawn"), "the same meter"),
    ],
)
def test_who_could_not_be_sold_the_new_version_is_left_and_named(
    database: Database, now: datetime, key: str, then: str, why: str
) -> None:
    shop = Business(database, now, sold(FEE, ASKED, DRAWN))
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    sell(shop, sold(then))
    moved = migrate(shop, "2025-01-01", key=key)
    assert (moved.changing, list(moved.left)) == (0, [acme])
    assert why in moved.left[acme]
    assert shop.bill("2025-02-02").problems == []
    assert {one.currency for one in shop.invoices()} == {"usd"}


def sold_each(interval: str, amount: int, *, version: int = 1) -> bytes:
    """The catalog with the fee of Duo asked each interval."""
    line = b"{key: duo_fee, name: Fee, charge: {model: flat, amount: 31}}"
    fee = f"{{key: duo_fee, version: {version}, name: Fee, interval: {interval}, "
    assert line in CATALOG
    return CATALOG.replace(line, f"{fee}charge: {{model: flat, amount: {amount}}}}}".encode())


@pytest.mark.parametrize(
    ("was", "becomes", "fees"),
    [
        ("year", "month", [12_000, 1_200, 1_200]),
        ("month", "quarter", [12_000] * 12 + [1_200]),
        ("day", "week", None),
    ],
)
def test_a_version_of_another_interval_waits_for_a_boundary_of_both(
    database: Database, now: datetime, was: str, becomes: str, fees: list[int] | None
) -> None:
    shop = Business(database, now, sold_each(was, 120))
    shop.subscribe(shop.customer("acme"), "duo", "2024-02-10")
    shop.bill("2024-12-15")
    sell(shop, sold_each(becomes, 12, version=2))
    assert migrate(shop, "2024-12-15", key="duo_fee").changing == 1
    shop.bill("2025-03-12", now=at("2025-03-12"))
    asked = [amount for name, amount in billed(shop) if name == "Fee"]
    assert set(asked) == {12_000, 1_200}
    assert fees is None or asked == fees
    with shop.database.transaction() as tx:
        assert correcting.notes(tx, customer_id=customers.find(tx, "acme").customer_id) == []
    assert shop.verify() == []


def test_weeks_and_months_never_meet_so_nobody_is_moved_between_them(
    database: Database, now: datetime
) -> None:
    shop = Business(database, now, sold_each("week", 10))
    acme = shop.customer("acme")
    shop.subscribe(acme, "duo", "2024-11-10")
    sell(shop, sold_each("month", 40, version=2))
    moved = migrate(shop, "2025-01-01", key="duo_fee")
    assert (moved.changing, list(moved.left)) == (0, [acme])
    assert "no boundary in common" in moved.left[acme]


def test_who_has_an_older_version_of_an_add_on_is_named(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    take(shop, "2024-12-01")
    old = b"{key: support, name: Support, charge: {model: seat, unit: 3.10},"
    sell(shop, CATALOG.replace(old, old.replace(b"support,", b"support, version: 2,", 1)))
    moved = migrate(shop, "2025-01-01", key="support")
    assert (moved.changing, list(moved.left)) == (0, [acme])
    assert "take it anew" in moved.left[acme]


@pytest.mark.parametrize("is_back", [False, True])
def test_who_is_paused_is_named_and_moves_once_they_are_back(shop: Business, is_back: bool) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    with shop.database.transaction() as tx:
        changes.pause(tx, customer_id=acme, now=at("2024-12-05"))
        if is_back:
            changes.resume(tx, customer_id=acme, now=at("2024-12-06"))
    new_version(shop)
    moved = migrate(shop, "2025-01-01")
    assert (moved.changing, list(moved.left)) == ((1, []) if is_back else (0, [acme]))
    assert is_back or "resume it first" in moved.left[acme]


def test_who_was_paused_with_an_older_version_and_has_none_now_is_not_named(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-12-01")
    with shop.database.transaction() as tx:
        changes.pause(tx, customer_id=acme, now=at("2024-12-05"))
        changes.resume(tx, customer_id=acme, now=at("2024-12-06"))
        changes.change(tx, customer_id=acme, plan_key="duo", when=When.NOW, now=at("2024-12-07"))
        changes.pause(tx, customer_id=acme, now=at("2024-12-08"))
    new_version(shop)
    assert migrate(shop, "2025-01-01") == repricing.Moved()


@pytest.mark.parametrize("can", [True, False])
def test_a_trial_that_is_over_is_decided_before_a_migration(shop: Business, can: bool) -> None:
    acme = shop.customer("acme")
    with shop.database.transaction() as tx:
        subscriptions.create(
            tx, customer_id=acme, plan_key="solo", start=at("2024-11-20"), now=shop.now,
            trial=Trial(14, TrialPolicy.PAUSE),
        )  # fmt: skip
    new_version(shop)
    moved = migrate(shop, "2025-01-01", can_pay=lambda _, ids: ids if can else ())
    assert (moved.changing, list(moved.left)) == ((1, []) if can else (0, [acme]))
    assert can or "resume it first" in moved.left[acme]
