"""The tax file, invoices with tax, who is left out until it can be told, and checked numbers."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting, explaining, issuing
from convergio.billing.model import CreditKind, Invoice, InvoiceView, Voiding
from convergio.customers import actions as customers
from convergio.customers.model import Details
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Conflict, Invalid
from convergio.kernel.money import Money
from convergio.kernel.quantity import quantity_text
from convergio.ledger import actions as ledger
from convergio.rating.taxing import Treatment, tax_of
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from convergio.taxes import actions as taxes
from convergio.taxes.model import Checked, NumberCheck
from convergio.taxes.numbers import OfflineChecker
from tests.fakes.business import SELLER, Business, at

CATALOG = b"""
currency: usd
events: [{type: ai.request, keep: []}]
meters: [{key: questions, name: Questions, event: ai.request, value: quantity}]
plans:
  - key: pro
    name: Pro
    prices:
      - {key: pro-fee, name: Pro, charge: {model: flat, amount: "10.00"}}
      - {key: pro-questions, name: Questions, meter: questions, charge: {model: unit, unit: "0.05"},
         tax_category: reduced}
  - key: shop
    name: Shop
    prices:
      - {key: shop-fee, name: Shop, charge: {model: flat, amount: "10.00"}, tax_inclusive: true}
  - key: team
    name: Team
    prices: [{key: team-fee, name: Team, charge: {model: flat, amount: "100.00"}}]
  - key: house
    name: House
    prices: [{key: house-fee, name: House, charge: {model: flat, amount: "300.00"}}]
  - key: library
    name: Library
    prices:
      - {key: library-fee, name: Library, tax_category: reduced,
         charge: {model: flat, amount: "300.00"}}
"""
RATE = Decimal(22)
TAXES = b"""
seller: IT
one_stop_shop: true
registrations:
  - {country: IT}
  - {country: US, region: CA}
rates:
  - {country: IT, percent: "22"}
  - {country: IT, category: reduced, percent: "10", to: 2025-02-01}
  - {country: IT, category: reduced, percent: "5", from: 2025-02-01}
  - {country: FR, percent: "20"}
  - {country: FR, category: reduced, percent: "5.5"}
  - {country: US, region: CA, percent: "7.25"}
"""


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    made = Business(database, now, CATALOG)
    with database.transaction() as tx:
        taxes.apply(tx, TAXES, now=now)
    return made


def subscribed(shop: Business, key: str, plan: str = "pro", **personal: str) -> UUID:
    customer_id = shop.customer(key, **personal)
    shop.subscribe(customer_id, plan, "2025-01-01")
    return customer_id


def views(shop: Business, customer_id: UUID) -> list[InvoiceView]:
    found = shop.invoices(customer_id)
    with shop.database.transaction() as tx:
        return [billing.read(tx, shop.keyring, one) for one in found]


def taxed(view: InvoiceView) -> list[tuple[str, str, int, int]]:
    return [(row.treatment.value, quantity_text(row.rate), row.net, row.tax) for row in view.taxes]


def verified(tx: Tx, shop: Business, customer_id: UUID, evidence: str) -> NumberCheck:
    return taxes.verify_number(
        tx, shop.keyring, OfflineChecker(), customer_id=customer_id, evidence=evidence, now=shop.now
    )


def issuer(shop: Business, when: str) -> issuing.Issuer:
    return issuing.Issuer(SELLER, shop.keyring, at(when), at(when))


def find(shop: Business, customer_id: UUID) -> Invoice:
    return views(shop, customer_id)[0].invoice


def test_an_invoice_has_its_tax_once_a_group_and_the_ledger_owes_it(shop: Business) -> None:
    customer_id = subscribed(shop, "rossi", country="IT")
    shop.use("rossi", 3, "2025-01-10T00:00:00Z")
    shop.bill("2025-02-02")
    first, second = views(shop, customer_id)
    assert taxed(first) == [("standard", "22", 1_000, 220)]
    assert (first.invoice.subtotal, first.invoice.tax, first.invoice.total) == (1_000, 220, 1_220)
    # the usage of January bears January's reduced rate, 10% of 0.15
    assert taxed(second) == [("standard", "22", 1_000, 220), ("standard", "10", 15, 2)]
    with shop.database.transaction() as tx:
        totals = {account: money.minor for (account, _), money in ledger.totals(tx).items()}
    assert totals["tax_payable"] == -442
    assert totals["receivable"] == first.invoice.total + second.invoice.total
    assert shop.verify() == []


def test_late_usage_bears_the_rate_of_its_own_period(shop: Business) -> None:
    customer_id = subscribed(shop, "rossi", country="IT")
    shop.bill("2025-02-02")
    shop.use("rossi", 4, "2025-01-20T00:00:00Z")
    shop.use("rossi", 4, "2025-02-20T00:00:00Z")
    shop.bill("2025-03-02")
    *_, last = views(shop, customer_id)
    assert taxed(last) == [
        ("standard", "22", 1_000, 220),
        ("standard", "10", 20, 2),
        ("standard", "5", 20, 1),
    ]


def test_a_price_with_tax_inside_keeps_its_total(shop: Business) -> None:
    customer_id = subscribed(shop, "bianchi", "shop", country="IT")
    shop.bill("2025-01-02")
    (view,) = views(shop, customer_id)
    assert (view.invoice.total, view.invoice.tax) == (1_000, 180)
    assert taxed(view) == [("standard", "22", 820, 180)]
    assert shop.verify() == []


def test_tax_03_whose_tax_cannot_be_told_waits_and_goes_on_once_it_can(shop: Business) -> None:
    nowhere = subscribed(shop, "nowhere")
    italian = subscribed(shop, "rossi", country="IT")
    report = shop.bill("2025-01-02")
    assert [(one.customer_id, one.code) for one in report.problems] == [(nowhere, "tax_unknown")]
    assert len(views(shop, italian)) == 1
    with shop.database.transaction() as tx:
        assert [one.code for one in billing.parked(tx)] == ["tax_unknown"]
        customers.update(tx, shop.keyring, nowhere, now=shop.now, country="FR")
    assert shop.bill("2025-01-02").problems == []
    assert taxed(views(shop, nowhere)[0]) == [("standard", "20", 1_000, 200)]
    with shop.database.transaction() as tx:
        assert billing.parked(tx) == []


def test_a_region_decides_where_only_it_is_taxed(shop: Business) -> None:
    where = {"country": "US", "street": "1 Main Street", "city": "Anywhere"}
    taxed_there = subscribed(shop, "ca", "team", region="CA", **where)
    elsewhere = subscribed(shop, "tx", "team", region="TX", **where)
    unknown = subscribed(shop, "us", "team", country="US")
    report = shop.bill("2025-01-02")
    assert taxed(views(shop, taxed_there)[0]) == [("standard", "7.25", 10_000, 725)]
    assert taxed(views(shop, elsewhere)[0]) == [("export", "0", 10_000, 0)]
    assert [one.customer_id for one in report.problems] == [unknown]


def test_a_number_is_verified_by_an_act_with_evidence_and_never_by_its_form_alone(
    shop: Business,
) -> None:
    customer_id = subscribed(shop, "dupont", "team", country="FR", tax_id="FR40303265045")
    shop.bill("2025-01-02")
    assert taxed(views(shop, customer_id)[0]) == [("standard", "20", 10_000, 2_000)]
    with shop.database.transaction() as tx:
        check = verified(tx, shop, customer_id, "VIES, request WAPIAAAAX1")
        assert check.is_valid
        assert taxes.checks(tx, customer_id) == [check]
    shop.bill("2025-02-02")
    view = views(shop, customer_id)[1]
    assert taxed(view) == [("reverse_charge", "0", 10_000, 0)]
    assert "Reverse charge" in (view.taxes[0].reason or "")
    assert shop.verify() == []


@pytest.mark.parametrize(("home", "number"), [("IT", "IT00743110157"), ("US", "12-3456789")])
def test_tax_01_a_number_of_one_country_earns_nothing_after_a_move_to_another(
    shop: Business, home: str, number: str
) -> None:
    customer_id = subscribed(shop, "mover", "team", country=home, tax_id=number)
    with shop.database.transaction() as tx:
        assert verified(tx, shop, customer_id, "The register said so").is_valid
    with shop.database.transaction() as tx:
        customers.update(tx, shop.keyring, customer_id, now=shop.now, country="FR")
    shop.bill("2025-01-02")
    assert taxed(views(shop, customer_id)[0]) == [("standard", "20", 10_000, 2_000)]


@pytest.mark.parametrize("change", [{"tax_id": "FR00000000000"}, {"country": "IT"}])
def test_a_number_that_changes_while_it_is_checked_is_not_verified(
    shop: Business, change: Details
) -> None:
    customer_id = shop.customer("dupont", country="FR", tax_id="FR40303265045")

    class Slow:
        name = "a slow register"

        def check(self, country: str, number: str) -> Checked:
            with shop.database.transaction() as other:
                customers.update(other, shop.keyring, customer_id, now=shop.now, **change)
            return Checked(is_valid=True, finding=f"{number} is one of {country}")

    with pytest.raises(Conflict, match="check again") as caught, shop.database.transaction() as tx:
        taxes.verify_number(
            tx, shop.keyring, Slow(), customer_id=customer_id, evidence="VIES", now=shop.now
        )
    assert caught.value.code == "tax_number_changed"
    with shop.database.transaction() as tx:
        assert customers.get(tx, customer_id).tax_id_verified_at is None
        assert taxes.checks(tx, customer_id) == []


def test_tax_01_a_number_that_cannot_be_one_is_charged_tax_all_the_same(shop: Business) -> None:
    customer_id = subscribed(shop, "dupont", "team", country="FR", tax_id="FR00000000000")
    with shop.database.transaction() as tx:
        check = verified(tx, shop, customer_id, "He said so")
    assert not check.is_valid
    shop.bill("2025-01-02")
    assert taxed(views(shop, customer_id)[0]) == [("standard", "20", 10_000, 2_000)]


def test_a_check_without_number_or_evidence_is_refused_and_keeps_nothing(shop: Business) -> None:
    customer_id = shop.customer("rossi", country="IT")
    with shop.database.transaction() as tx:
        card = "seen on card 4242 4242 4242 4242"
        for evidence, error in (("VIES", Conflict), (" ", Invalid), (card, Invalid)):
            with pytest.raises(error):
                verified(tx, shop, customer_id, evidence)
        assert taxes.checks(tx, customer_id) == []


def test_parts_of_an_invoice_are_credited_with_their_tax_and_the_last_closes_the_cent(
    shop: Business,
) -> None:
    customer_id = subscribed(shop, "rossi", country="IT")
    shop.bill("2025-01-02")
    invoice, by = find(shop, customer_id), issuer(shop, "2025-01-03")
    notes = []
    for amount in (Money(333, "usd"), Money(333, "usd"), None):
        with shop.database.transaction() as tx:
            note = correcting.credit(tx, by, invoice=invoice, reason="Goodwill", amount=amount)
            notes.append(note)
    assert [(note.subtotal, note.tax) for note in notes] == [(333, 73), (333, 74), (334, 73)]
    assert sum(note.total for note in notes) == invoice.total
    assert find(shop, customer_id).due.minor == 0
    with shop.database.transaction() as tx:
        totals = {account: money.minor for (account, _), money in ledger.totals(tx).items()}
    assert totals["tax_payable"] == totals["receivable"] == 0
    assert shop.verify() == []


@pytest.mark.parametrize("how", list(Voiding))
def test_a_void_invoice_gives_back_its_tax_and_only_a_reissue_bills_it_again(
    shop: Business, how: Voiding
) -> None:
    customer_id = subscribed(shop, "bianchi", "shop", country="IT")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        correcting.void(tx, issuer(shop, "2025-01-03"), invoice=find(shop, customer_id), how=how)
    shop.bill("2025-02-02")
    last = views(shop, customer_id)[-1]
    again = how == Voiding.REISSUE
    assert [line.amount for line in last.lines] == [1_000, 1_000] if again else [1_000]
    assert last.invoice.tax == tax_of(Money(last.invoice.total, "usd"), RATE, inclusive=True).minor
    with shop.database.transaction() as tx:
        assert ledger.totals(tx)["tax_payable", "usd"].minor == -last.invoice.tax
    assert shop.verify() == []


def test_tax_04_a_downgrade_takes_back_the_tax_at_the_rate_of_the_line_that_it_reduces(
    shop: Business,
) -> None:
    customer_id = subscribed(shop, "rossi", "team", country="IT")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        customers.update(tx, shop.keyring, customer_id, now=shop.now, country="FR")
    with shop.database.transaction() as tx:
        subscriptions.cancel(
            tx, customer_id=customer_id, at_period_end=False, credit=True, now=at("2025-01-16")
        )
    shop.bill("2025-01-17")
    with shop.database.transaction() as tx:
        (note,) = correcting.notes(tx, customer_id=customer_id)
        (row,) = taxes.of_credit_note(tx, customer_id, note.credit_note_id)
    assert (row.rate, row.net) == (Decimal(22), note.subtotal)
    assert note.total == note.subtotal + row.tax
    assert note.kind == CreditKind.CORRECTION
    assert shop.verify() == []


@pytest.mark.parametrize("plan", ["house", "library"])
def test_a_reduction_nets_within_its_tax_group_and_is_a_credit_note_where_that_would_turn_negative(
    shop: Business, plan: str
) -> None:
    customer_id = subscribed(shop, "rossi", "team", country="IT")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        changes.change(
            tx, customer_id=customer_id, plan_key=plan, seats=None, when=When.NOW,
            now=at("2025-01-16"),
        )  # fmt: skip
    shop.bill("2025-01-17")
    with shop.database.transaction() as tx:
        notes = correcting.notes(tx, customer_id=customer_id)
    last = views(shop, customer_id)[-1]
    # 16 of 31 days are left: 51.61 of Team go back, 154.84 are charged
    if plan == "house":
        assert taxed(last) == [("standard", "22", 10_323, 2_271)]
        assert notes == []
    else:
        assert taxed(last) == [("standard", "10", 15_484, 1_548)]
        assert [(one.subtotal, one.tax, one.total) for one in notes] == [(5_161, 1_135, 6_296)]
    assert shop.verify() == []


def test_a_preview_shows_the_tax_that_the_run_then_bills(shop: Business) -> None:
    customer_id = subscribed(shop, "rossi", country="IT")
    with shop.database.transaction() as tx:
        found = explaining.preview(
            tx, customer_id=customer_id, now=shop.now, at=at("2025-01-02"), keyring=shop.keyring
        )
    value = explaining.preview_value(found)["invoices"][0]
    shop.bill("2025-01-02")
    invoice = find(shop, customer_id)
    assert (value["tax"], value["total"], value["to_pay"]) == ("2.20", "12.20", "12.20")
    assert Money(invoice.total, "usd").text() == value["total"]
    assert value["taxes"][0]["treatment"] == Treatment.STANDARD


def test_without_a_tax_file_nothing_is_taxed(database: Database, now: datetime) -> None:
    shop = Business(database, now, CATALOG)
    customer_id = subscribed(shop, "nowhere", "shop")
    shop.bill("2025-01-02")
    (view,) = views(shop, customer_id)
    assert (view.taxes, view.invoice.total, view.lines[0].tax_treatment) == ((), 1_000, "none")
    assert shop.verify() == []


def test_applying_the_same_file_again_changes_nothing(shop: Business) -> None:
    with shop.database.transaction() as tx:
        before = taxes.stored(tx)
        assert taxes.apply(tx, TAXES, now=shop.now) == (before, False)
        tried, is_new = taxes.try_apply(tx, TAXES.replace(b'"22"', b'"23"'), now=shop.now)
        assert (tried.version, is_new) == (2, True)
        assert taxes.stored(tx) == before


def test_a_file_that_overlaps_itself_is_refused_and_nothing_changes(shop: Business) -> None:
    with shop.database.transaction() as tx:
        before = taxes.stored(tx)
        with pytest.raises(Invalid):
            taxes.apply(tx, TAXES + b'  - {country: FR, percent: "21"}\n', now=shop.now)
        assert taxes.stored(tx) == before
