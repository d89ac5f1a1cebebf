"""Where a consumer is: what says so, what contradicts it, and what an invoice keeps of it."""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from typer.testing import CliRunner, Result

from convergio.billing import actions as billing
from convergio.billing.model import InvoiceView
from convergio.cli.main import app
from convergio.customers import actions as customers
from convergio.identity.model import Scope
from convergio.infra import log
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.infra.postgres import Embedded
from convergio.infra.settings import Secret, Settings
from convergio.kernel.errors import Conflict, Invalid, NotFound
from convergio.taxes import actions as taxes
from convergio.taxes import stating
from convergio.taxes.model import EvidenceKind, Placed
from convergio.taxes.numbers import OfflineChecker
from convergio.wiring import opened
from convergio.worker import chores
from tests.fakes.api import Api, running
from tests.fakes.business import Business, at

CATALOG = b"""
currency: eur
events: [{type: ai.request, keep: []}]
meters: [{key: questions, name: Questions, event: ai.request, value: quantity}]
plans:
  - key: team
    name: Team
    prices: [{key: team-fee, name: Team, charge: {model: flat, amount: "100.00"}}]
"""
TAXES = b"""
seller: IT
one_stop_shop: true
registrations: [{country: IT}]
rates:
  - {country: IT, percent: "22"}
  - {country: FR, percent: "20"}
"""
TWO = TAXES + b"location_evidence: 2\n"
Call = Callable[..., Result]


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    made = Business(database, now, CATALOG)
    with database.transaction() as tx:
        taxes.apply(tx, TAXES, now=now)
    return made


def subscribed(shop: Business, key: str, **personal: str) -> UUID:
    customer_id = shop.customer(key, currency="eur", **personal)
    shop.subscribe(customer_id, "team", "2025-01-01")
    return customer_id


def seen(shop: Business, customer_id: UUID, **countries: str) -> None:
    with shop.database.transaction() as tx:
        for kind, country in countries.items():
            taxes.locate(
                tx, customer_id=customer_id, kind=EvidenceKind(kind), country=country, now=shop.now
            )


def parked(shop: Business) -> dict[UUID, str]:
    report = shop.bill("2025-01-02")
    assert {one.code for one in report.problems} <= {"tax_unknown"}
    return {one.customer_id: one.reason for one in report.problems}


def view(shop: Business, customer_id: UUID) -> InvoiceView:
    (found,) = shop.invoices(customer_id)
    with shop.database.transaction() as tx:
        return billing.read(tx, shop.keyring, found)


def test_tax_03_evidence_that_contradicts_the_account_keeps_its_customer_waiting(
    shop: Business,
) -> None:
    customer_id, other = (
        subscribed(shop, "marie", country="FR"),
        subscribed(shop, "ada", country="IT"),
    )
    seen(shop, customer_id, card="IT")
    waits = parked(shop)
    assert waits.keys() == {customer_id}
    assert "`convergio tax evidence CUSTOMER`" in waits[customer_id]
    assert len(shop.invoices(other)) == 1
    seen(shop, customer_id, ip="FR")
    assert parked(shop) == {}
    found = view(shop, customer_id)
    assert [(int(row.rate), row.tax) for row in found.taxes] == [(20, 2_000)]
    assert found.kept.place == Placed("FR", (("billing", "FR"), ("card", "IT"), ("ip", "FR")))
    assert shop.verify() == []


@pytest.mark.parametrize("file", [TAXES, TWO])
def test_a_reason_names_no_place_of_the_customer(
    shop: Business, database: Database, file: bytes
) -> None:
    with database.transaction() as tx:
        taxes.apply(tx, file, now=shop.now)
    subscribed(shop, "alone", country="FR")
    doubtful = subscribed(shop, "marie", country="FR")
    seen(shop, doubtful, card="DE", ip="ES")
    waits = parked(shop)
    assert doubtful in waits
    with database.transaction() as tx:
        rows = tx.raw.execute(
            "SELECT report::text FROM billing_run UNION ALL SELECT reason FROM billing_park"
        ).fetchall()
    for text in (*waits.values(), *(row[0] for row in rows)):
        assert not re.search(r"\b(FR|DE|ES)\b", text), text


def test_the_worker_s_log_counts_who_waits_and_names_nobody(shop: Business, tmp_path: Path) -> None:
    for name in ("marie", "pierre", "anne"):
        seen(shop, subscribed(shop, name, country="FR"), card="DE")
    settings = Settings(home=str(tmp_path), kek=Secret(base64.b64encode(bytes(range(32))).decode()))
    clock, written = VirtualClock(at("2025-01-16")), io.StringIO()
    with (
        opened(settings, url=shop.database.dsn, clock=clock, migrated=True) as product,
        redirect_stderr(written),
    ):
        log.configure("info")
        chores(product)["convergio.bill"].work()
    structlog.reset_defaults()
    (line,) = [json.loads(one) for one in written.getvalue().splitlines()]
    assert (line["event"], line["problems"]) == ("billed", {"tax_unknown": 3})
    assert "cus_" not in written.getvalue()


def test_two_pieces_against_two_settle_nothing(shop: Business) -> None:
    customer_id = subscribed(shop, "marie", country="FR")
    seen(shop, customer_id, card="IT", ip="FR", bank="IT")
    assert parked(shop).keys() == {customer_id}
    seen(shop, customer_id, bank="FR")  # the last of a kind counts
    assert parked(shop) == {}


def test_a_corrected_country_settles_it_too(shop: Business) -> None:
    customer_id = subscribed(shop, "marie", country="FR")
    seen(shop, customer_id, card="IT", ip="IT")
    assert parked(shop).keys() == {customer_id}
    with shop.database.transaction() as tx:
        customers.update(tx, shop.keyring, customer_id, now=shop.now, country="IT")
    assert parked(shop) == {}
    assert [row.rate for row in view(shop, customer_id).taxes] == [22]


def test_tax_03_a_seller_may_ask_for_two_pieces_of_evidence_always(shop: Business) -> None:
    with shop.database.transaction() as tx:
        taxes.apply(tx, TWO, now=shop.now)
    customer_id = subscribed(shop, "marie", country="FR")
    business = subscribed(shop, "dupont", country="FR", tax_id="FR40303265045")
    with shop.database.transaction() as tx:
        taxes.verify_number(
            tx, shop.keyring, OfflineChecker(), customer_id=business, evidence="VIES",
            now=shop.now,
        )  # fmt: skip
    waits = parked(shop)
    assert waits.keys() == {customer_id}
    assert "one more piece of evidence" in waits[customer_id]
    # a verified business accounts for the tax itself, wherever its card is from
    kept = view(shop, business).kept.place
    assert kept == Placed(None, (("billing", "FR"), ("vat_number", "FR")))
    seen(shop, customer_id, card="FR")
    assert parked(shop) == {}


def test_an_invoice_keeps_what_was_known_on_its_day(shop: Business) -> None:
    customer_id = subscribed(shop, "marie", country="FR")
    assert parked(shop) == {}
    seen(shop, customer_id, card="IT", ip="IT")
    assert view(shop, customer_id).kept.place == Placed("FR", (("billing", "FR"),))


def test_a_sale_at_home_without_evidence_keeps_no_place(shop: Business) -> None:
    customer_id = subscribed(shop, "ada", country="IT")
    assert parked(shop) == {}
    assert view(shop, customer_id).kept.place is None


@pytest.mark.parametrize("country", ["fr", "FRA", "F1", "", "EL", "XX", "EU"])
def test_evidence_of_no_country_is_refused_and_keeps_nothing(shop: Business, country: str) -> None:
    customer_id = subscribed(shop, "marie", country="FR")
    with pytest.raises(Invalid):
        seen(shop, customer_id, card=country)
    with pytest.raises(NotFound):
        seen(shop, UUID(int=9), card="FR")
    with shop.database.transaction() as tx:
        assert taxes.evidence_of(tx, [customer_id]) == {}


@pytest.mark.parametrize(
    ("country", "number"),
    [("FR", "DE136695976"), ("FR", "IT00743110157"), ("IT", "IT00743110157"), ("FR", "FR1")],
)
def test_tax_01_a_number_of_another_country_or_of_the_seller_earns_no_reverse_charge(
    shop: Business, country: str, number: str
) -> None:
    customer_id = subscribed(shop, "sly", country=country, tax_id=number)
    with shop.database.transaction() as tx:
        taxes.verify_number(
            tx, shop.keyring, OfflineChecker(), customer_id=customer_id, evidence="He said so",
            now=shop.now,
        )  # fmt: skip
    assert parked(shop) == {}
    (row,) = view(shop, customer_id).taxes
    assert (row.treatment, row.tax > 0) == ("standard", True)


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, template, tmp_path_factory.mktemp("home")) as found:
        yield found


def test_evidence_is_recorded_over_http_by_the_seller_alone(api: Api) -> None:
    name, customer_id = api.customer()
    path = f"/v1/customers/{name}/location-evidence"
    told = api.post(path, {"kind": "ip", "country": "DE"})
    assert (told.status_code, told.json()["kind"]) == (200, "ip")
    own = api.key(Scope.CUSTOMERS_READ, Scope.CUSTOMERS_WRITE, customer_id=customer_id)
    assert api.post(path, {"kind": "card", "country": "FR"}, key=own).status_code == 403
    for wrong in ({"kind": "hat", "country": "DE"}, {"kind": "ip", "country": "Germany"}):
        assert api.post(path, wrong).status_code == 422, wrong
    shown = api.get(path, key=own).json()
    assert [(one["kind"], one["country"]) for one in shown["evidence"]] == [("ip", "DE")]


def test_an_invoice_says_over_http_what_it_keeps(api: Api) -> None:
    plain = api.get(f"/v1/invoices/{api.billed()}").json()
    assert (plain["stated_tax"], plain["tax_place"]) == (None, None)
    with api.product.database.transaction() as tx:
        taxes.apply(tx, TAXES + b"currency: eur\n", now=api.now)
        rates = f"Date,USD\n{api.now.date().isoformat()},1.25\n"
        stating.import_rates(tx, rates.encode(), now=api.now)
    name, customer_id = api.customer("pro")
    api.send("PATCH", f"/v1/customers/{name}", {"country": "FR"})
    billing.run(
        api.product.database, as_of=api.now, now=api.now, seller=api.product.settings.seller,
        keyring=api.product.keyring, grace=api.product.grace * 0,
    )  # fmt: skip
    with api.product.database.transaction() as tx:
        (invoice,) = billing.page(tx, customer_id=customer_id)
    shown = api.get(f"/v1/invoices/{invoice.number_text}").json()
    # 20 % of 6.99 dollars is 1.40, at 1.25 dollars a euro
    assert shown["stated_tax"] == {
        "currency": "eur", "tax": "1.12", "rate": "1.25", "own_rate": "1",
        "published": api.now.date().isoformat(), "source": "ECB",
    }  # fmt: skip
    place = {"country": "FR", "evidence": [{"kind": "billing", "country": "FR"}]}
    assert shown["tax_place"] == place


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    return lambda *words, **more: CliRunner().invoke(app, words, **more)


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


def test_evidence_is_recorded_and_shown_on_the_command_line(call: Call) -> None:
    answer(call("customer", "create", "marie", "--country", "FR", "--json"))
    wish = ("--kind", "card", "--country", "FR", "--note", "BIN 497010", "--json")
    assert answer(call("tax", "locate", "marie", *wish))["country"] == "FR"
    shown = answer(call("tax", "evidence", "marie", "--json"))
    assert (shown["country"], [one["kind"] for one in shown["evidence"]]) == ("FR", ["card"])
    assert "BIN 497010" in call("tax", "evidence", "marie").stdout
    assert call("tax", "locate", "marie", "--kind", "hat", "--country", "FR").exit_code == 2


def test_rates_are_imported_and_asked_for_on_the_command_line(call: Call, tmp_path: Path) -> None:
    missing = call("tax", "exchange", "USD")
    assert isinstance(missing.exception, NotFound)
    (tmp_path / "taxes.yaml").write_bytes(TAXES + b"currency: eur\n")
    applied = answer(call("tax", "apply", str(tmp_path / "taxes.yaml"), "--json"))
    assert (applied["currency"], applied["fatturapa"]) == ("eur", False)
    file = tmp_path / "eurofxref-hist.csv"
    file.write_text("Date,USD,\n2025-01-03,1.0299,\n2024-12-31,1.0389,\n")
    wish = ("tax", "rates", str(file), "--json")
    assert answer(call(*wish, "--since", "2025-01-01")) == {"rates": 1, "new": 1}
    assert answer(call(*wish)) == {"rates": 2, "new": 1}
    shown = answer(call("tax", "exchange", "usd", "--on", "2025-01-04", "--json"))
    assert (shown["rate"], shown["published"], shown["source"]) == ("1.0299", "2025-01-03", "ECB")
    shown = answer(call("tax", "exchange", "usd", "--on", "2025-01-07", "--json"))
    assert "2025-01-06" in shown["reason"]
    daily = call("tax", "rates", "-", "--json", input="Date, USD\n03 January 2025, 1.03\n")
    assert isinstance(daily.exception, Conflict)
    wrong = call("tax", "rates", str(file), "--since", "soon")
    assert isinstance(wrong.exception, Invalid)
