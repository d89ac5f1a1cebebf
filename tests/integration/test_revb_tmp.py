from datetime import datetime, timedelta
import pytest
from convergio.billing import actions as billing, correcting, issuing
from convergio.billing.model import *
from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.kernel.money import Money
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import adding, changes, negotiating, repricing
from convergio.subscriptions.model import When
from tests.fakes.business import Business, at, SELLER

CATALOG = b"""
currency: usd
events:
  - type: ai.request
meters:
  - {key: questions, name: Questions, event: ai.request, value: quantity, default: 1}
plans:
  - key: yearly
    name: Yearly
    prices:
      - {key: yfee, name: Fee, interval: year, charge: {model: flat, amount: 120}}
      - {key: use, name: Questions, meter: questions, charge: {model: unit, unit: 0.10}}
  - key: solo
    name: Solo
    prices:
      - {key: fee, name: Fee, charge: {model: flat, amount: 31}}
      - {key: use1, name: Questions, meter: questions, charge: {model: unit, unit: 0.10}}
  - key: support
    name: Support
    add_on: true
    prices:
      - {key: ssetup, name: SSetup, once: true, charge: {model: flat, amount: 7}}
      - {key: support, name: Support, charge: {model: seat, unit: 3.10}}
"""

@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now, CATALOG)

def show(shop):
    with shop.database.transaction() as tx:
        for one in shop.invoices():
            v = billing.read(tx, shop.keyring, one)
            print(one.number_text, one.boundary_at, one.total, one.status)
            for l in v.lines: print("   ", l.description, l.amount, l.discount, l.period_start, l.period_end)
        for n in correcting.notes(tx):
            print(n.number_text, n.reason, n.total, n.applied)
    print("VERIFY", shop.verify())

def once(shop, when, how=When.PERIOD_END):
    with shop.database.transaction() as tx:
        return adding.charge_once(tx, customer_id=customers.find(tx, "acme").customer_id, description="Extra", amount=Money.parse("50.00","usd"), when=how, now=at(when))
def take(shop, when, quantity=1, how=When.NOW):
    with shop.database.transaction() as tx:
        return adding.set_add_on(tx, customer_id=customers.find(tx, "acme").customer_id, key="support", quantity=quantity, when=how, now=at(when))
def verb(shop, f, when, **k):
    with shop.database.transaction() as tx:
        return f(tx, customer_id=customers.find(tx, "acme").customer_id, now=at(when), **k)
def void(shop, invoice, when, how="reissue"):
    with shop.database.transaction() as tx:
        return correcting.void(tx, issuing.Issuer(SELLER, shop.keyring, at(when), shop.now), invoice=invoice, how=Voiding(how))

def test_h5_once_lost_after_cancel(shop):
    acme = shop.customer("acme"); shop.subscribe(acme, "yearly", "2024-10-01")
    shop.bill("2024-10-02")
    once(shop, "2024-10-05")
    shop.cancel(acme, "2024-10-10", at_period_end=False)
    shop.bill("2024-10-15")
    shop.bill("2024-11-02"); shop.bill("2024-12-02"); shop.bill("2025-12-02")
    show(shop)

def test_h8_addon_removed_then_again(shop):
    acme = shop.customer("acme"); shop.subscribe(acme, "solo", "2024-10-01")
    take(shop, "2024-10-01", 1)
    shop.bill("2024-10-02")
    take(shop, "2024-10-10", 0, When.PERIOD_END)
    take(shop, "2024-10-16", 1)
    shop.bill("2024-11-02")
    show(shop)

def test_h8c_quantity(shop):
    acme = shop.customer("acme"); shop.subscribe(acme, "solo", "2024-10-01")
    take(shop, "2024-10-01", 1)
    take(shop, "2024-10-16", 2)
    shop.bill("2024-11-02")
    show(shop)

def test_h8b_addon_removed_then_pause_resume(shop):
    acme = shop.customer("acme"); shop.subscribe(acme, "solo", "2024-10-01")
    take(shop, "2024-10-01", 1)
    take(shop, "2024-10-10", 0, When.PERIOD_END)
    verb(shop, changes.pause, "2024-10-12")
    verb(shop, changes.resume, "2024-10-20")
    shop.bill("2024-11-02"); shop.bill("2024-12-02")
    show(shop)

def test_h4_once_void_reissue(shop):
    acme = shop.customer("acme"); shop.subscribe(acme, "solo", "2024-10-01")
    once(shop, "2024-10-05", When.NOW)
    shop.bill("2024-10-06")
    for i in shop.invoices(): void(shop, i, "2024-10-07")
    shop.bill("2024-10-08"); show(shop)
    shop.cancel(acme, "2024-10-10", at_period_end=False)
    shop.bill("2024-10-15")
    shop.bill("2024-11-02"); shop.bill("2024-12-02")
    show(shop)

def test_pause_once(shop):
    acme = shop.customer("acme"); shop.subscribe(acme, "yearly", "2024-10-01")
    once(shop, "2024-10-05")
    verb(shop, changes.pause, "2024-10-12")
    for d in ("2024-10-13","2024-10-20","2024-11-02","2024-12-02"): shop.bill(d)
    show(shop)
def test_ramp_once_pause(shop):
    acme = shop.customer("acme"); shop.subscribe(acme, "solo", "2024-10-01", )
    from convergio.rating.model import Flat
    with shop.database.transaction() as tx:
        negotiating.agree(tx, customer_id=acme, steps_=[negotiating.Step(at("2024-11-01"), {"fee": negotiating.Terms(Flat(amount="20"))}), negotiating.Step(at("2024-11-16"), {"fee": negotiating.Terms(Flat(amount="10"))})], now=at("2024-10-05"))
    shop.use("acme", 30, "2024-10-31T23:59:59Z"); shop.use("acme", 40, "2024-11-01T00:00:00Z")
    for d in ("2024-10-13","2024-10-20","2024-11-02","2024-11-20", "2024-12-02"): shop.bill(d)
    shop.use("acme", 7, "2024-10-31T23:59:58Z")
    shop.bill("2025-01-02")
    show(shop)

def test_trial_addon_once(shop):
    from convergio.subscriptions.model import Trial
    acme = shop.customer("acme")
    with shop.database.transaction() as tx:
        subscriptions.create(tx, customer_id=acme, plan_key="solo", start=at("2024-10-01"), now=shop.now, trial=Trial(14))
    take(shop, "2024-10-02", 1)
    take(shop, "2024-10-03", 2)
    take(shop, "2024-10-04", 0)
    shop.bill("2024-10-20")
    show(shop)
def test_trial_addon_once_kept(shop):
    from convergio.subscriptions.model import Trial
    acme = shop.customer("acme")
    with shop.database.transaction() as tx:
        subscriptions.create(tx, customer_id=acme, plan_key="solo", start=at("2024-10-01"), now=shop.now, trial=Trial(14))
    take(shop, "2024-10-02", 1)
    take(shop, "2024-10-03", 2)
    shop.bill("2024-10-20")
    show(shop)
