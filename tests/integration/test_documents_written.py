"""Documents of real runs: as files of a month, by number, and over HTTP."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from convergio.billing import actions as billing
from convergio.cli.main import app
from convergio.customers import actions as customers
from convergio.identity.model import Scope
from convergio.infra import migrate
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.infra.postgres import Embedded
from convergio.infra.settings import Secret, Settings
from convergio.kernel.errors import Conflict, Invalid, NotFound
from convergio.subscriptions import actions as subscriptions
from convergio.taxes import actions as taxes
from convergio.wiring import opened
from convergio.worker import chores
from tests.fakes import schemas
from tests.fakes.api import Api, running
from tests.fakes.documents import SELLER

REVISION = Path(migrate.__file__).with_name("migrations") / "versions" / "r0015_sellers.sql"
Call = Callable[..., Result]
CATALOG = """
currency: eur
events: [{type: ai.request, keep: [quantity]}]
meters: [{key: asks, name: Asks, event: ai.request, aggregation: sum, value: quantity, default: 1}]
plans:
  - key: prime
    name: Prime
    prices:
      - {key: prime-fee, name: Prime, interval: month, charge: {model: flat, amount: "6.99"}}
"""
TAXES = b"""
seller: IT
registrations: [{country: IT}]
rates: [{country: IT, percent: "22"}]
"""
ROME = ("--street", "Via Roma 1", "--postal-code", "00144", "--city", "Roma", "--region", "RM")


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    for name, value in msgspec.to_builtins(SELLER).items():
        if value:
            monkeypatch.setenv(f"CONVERGIO_SELLER_{name.upper()}", str(value))
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def billed(call: Call, tmp_path: Path) -> Call:
    """Two customers in Italy, taxed, with two invoices each; a third never gave an address."""
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    (tmp_path / "taxes.yaml").write_bytes(TAXES)
    answer(call("catalog", "apply", str(tmp_path / "catalog.yaml"), "--json"))
    answer(call("tax", "apply", str(tmp_path / "taxes.yaml"), "--json"))
    everyone = {"alba": (*ROME, "--tax-id", "IT07643520567"), "bruno": ROME, "carla": ()}
    for key, address in everyone.items():
        made = ("--currency", "eur", "--country", "IT", "--locale", "it", *address)
        answer(call("customer", "create", key, *made, "--json"))
        answer(call("subscribe", key, "prime", "--start", "2025-01-10T09:00:00Z", "--json"))
    assert answer(call("bill", "--as-of", "2025-03-01T00:00:00Z", "--json"))["invoices"] == 6
    return call


def first(billed: Call, customer: str) -> str:
    found = answer(billed("invoice", "list", "--customer", customer, "--json"))["invoices"]
    return str(found[0]["number"])


def test_an_invoice_and_its_credit_note_are_written_in_every_format(
    billed: Call, tmp_path: Path
) -> None:
    number = first(billed, "alba")
    wish = ("--amount", "3.00", "--reason", "Delay", "--json")
    note = answer(billed("invoice", "credit", number, *wish))["number"]
    for one in (number, note):
        out = str(tmp_path / "out.xml")
        answer(billed("invoice", "xml", one, "--out", out, "--json"))
        assert schemas.en_16931(Path(out).read_bytes()) == []
        told = answer(billed("invoice", "xml", one, "--format", "fatturapa", "--json"))
        assert Path(told["path"]).name.startswith("IT00743110157_")
        assert schemas.fatturapa(Path(told["path"]).read_bytes()) == []
        pdf = Path(answer(billed("invoice", "pdf", one, "--json"))["path"])
        assert pdf.name == f"{one}.pdf"
        assert b"factur-x.xml" in pdf.read_bytes()
    assert answer(billed("verify", "--json"))["ok"]


def test_tax_06_a_rejected_file_is_written_again_the_same_and_issuing_anew_bills_once(
    billed: Call,
) -> None:
    number = first(billed, "alba")
    wish = ("invoice", "xml", number, "--format", "fatturapa", "--json")
    sent = Path(answer(billed(*wish))["path"]).read_bytes()
    answer(billed("customer", "update", "alba", "--street", "Via Nuova 2", "--json"))
    again = Path(answer(billed(*wish))["path"]).read_bytes()
    assert again == sent  # the same number, day and content: another name is enough to send it
    before = answer(billed("customer", "history", "alba", "--json"))["entries"]
    answer(billed("invoice", "void", number, "--how", "reissue", "--json"))
    answer(billed("bill", "--as-of", "2025-03-11T00:00:00Z", "--json"))
    after = answer(billed("customer", "history", "alba", "--json"))["entries"]
    new = after[len(before) :]
    amounts = {one["type"]: one["amount"] for one in new}
    assert amounts == {
        "credit_note": "8.53",
        "invoice": "17.06",
    }  # January's fee again, and March's
    (number,) = (one["number"] for one in new if one["type"] == "invoice")
    fresh = billed("invoice", "xml", number, "--format", "fatturapa", "--json")
    written = Path(answer(fresh)["path"]).read_bytes()
    assert schemas.fatturapa(written) == []
    assert schemas.texts(written, "Indirizzo")[1] == "Via Nuova 2"
    assert answer(billed("verify", "--json"))["ok"]


def test_a_document_stays_as_it_was_issued_when_the_seller_moves(
    billed: Call, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(number: str) -> list[bytes]:
        pdf = billed("invoice", "pdf", number, "--json")
        xml = billed("invoice", "xml", number, "--json")
        italian = billed("invoice", "xml", number, "--format", "fatturapa", "--json")
        return [Path(answer(one)["path"]).read_bytes() for one in (pdf, xml, italian)]

    def noted() -> str:
        wish = ("--amount", "1.00", "--reason", "Delay", "--json")
        return str(answer(billed("invoice", "credit", number, *wish))["number"])

    number = first(billed, "alba")
    old_note = noted()
    before = {one: written(one) for one in (number, old_note)}
    monkeypatch.setenv("CONVERGIO_SELLER_NAME", "Nuova S.p.A.")
    monkeypatch.setenv("CONVERGIO_SELLER_STREET", "Via Nuova 9")
    assert {one: written(one) for one in before} == before
    new_note = written(noted())
    assert all(b"Nuova S.p.A." in xml for xml in new_note[1:])
    with database.transaction() as tx:
        assert tx.value("SELECT count(*) FROM seller_version") == 2
        tx.raw.execute("UPDATE invoice SET seller_version_id = NULL")
    assert b"Nuova S.p.A." in written(number)[1]  # issued before it was kept: today's


def test_files_of_two_series_in_one_year_have_names_of_their_own(
    billed: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(number: str) -> str:
        told = billed("invoice", "xml", number, "--format", "fatturapa", "--json")
        return Path(answer(told)["path"]).name

    def credited(number: str) -> str:
        wish = ("--amount", "1.00", "--reason", "Delay", "--json")
        return str(answer(billed("invoice", "credit", number, *wish))["number"])

    found = answer(billed("invoice", "list", "--customer", "alba", "--json"))["invoices"]
    old = [one["number"] for one in found]
    old += [credited(old[0])]
    before = {number: name(number) for number in old}
    monkeypatch.setenv("CONVERGIO_SELLER_SERIES", "NEW")
    answer(billed("bill", "--as-of", "2025-03-11T00:00:00Z", "--json"))
    found = answer(billed("invoice", "list", "--customer", "alba", "--json"))["invoices"]
    new = [one["number"] for one in found if one["number"].startswith("NEW")]
    new += [credited(old[1])]
    assert [number.split("-")[-1] for number in new] == ["000001", "000001"]
    names = {number: name(number) for number in (*old, *new)}
    assert len(set(names.values())) == len(names) == 5
    assert {number: names[number] for number in old} == before


def test_series_from_before_get_names_too_and_the_first_of_a_year_keeps_its_own(
    database: Database,
) -> None:
    script = REVISION.read_text(encoding="utf-8")
    fill = script[script.index("ALTER TABLE invoice_series") : script.index("-- payments:")]
    series = (
        ("AAA", 2025, "2025-06-30"), ("BBB", 2025, "2025-12-31"), ("AAA-CN", 2025, "2025-07-01"),
        ("BBB", 2026, "2026-12-31"), ("OLD", 2001, "2001-12-31"),
    )  # fmt: skip
    with database.transaction() as tx:
        tx.raw.execute("ALTER TABLE invoice_series DROP COLUMN file_block")
        for name, year, last in series:
            row = "INSERT INTO invoice_series VALUES (%s, %s, 1, %s)"
            tx.raw.execute(row, [name, year, last])
        tx.raw.execute(fill.encode())
        rows = tx.tuples("SELECT series, year, file_block FROM invoice_series")
    blocks = {(name, year): block for name, year, block in rows}
    assert blocks == {
        ("AAA", 2025): 10,
        ("AAA-CN", 2025): 11,
        ("BBB", 2026): 12,
        ("OLD", 2001): 90,
        ("BBB", 2025): 89,
    }


def test_one_unreadable_document_is_named_and_stands_in_no_other_s_way(
    billed: Call, database: Database
) -> None:
    with database.transaction() as tx:
        broken, sealed = tx.tuples(
            "SELECT number, sealed_buyer FROM invoice ORDER BY customer_id, invoice_id LIMIT 1"
        )[0]
        tx.raw.execute("UPDATE invoice SET sealed_buyer = 'x' WHERE number = %s", (broken,))
    wish = ("documents", "render", "--month", "2025-03", "--missing", "--processes", "1")
    done = answer(billed(*wish, "--json"))
    number = f"CVG-2025-{broken:06d}"
    assert (done["documents"], done["written"], list(done["broken"])) == (6, 5, [number])
    assert f"{number} could not be written" in billed(*wish).stdout
    with database.transaction() as tx:
        tx.raw.execute("UPDATE invoice SET sealed_buyer = %s WHERE number = %s", (sealed, broken))
    done = answer(billed(*wish, "--json"))
    assert (done["written"], done["kept"], done["broken"]) == (1, 5, {})


def test_only_who_pays_by_transfer_reads_the_account_and_issued_documents_keep_it(
    billed: Call,
) -> None:
    def iban(number: str) -> list[str]:
        told = answer(billed("invoice", "xml", number, "--json"))
        return schemas.texts(Path(told["path"]).read_bytes(), "IBANID")

    old = first(billed, "alba")
    answer(billed("payment", "terms", "alba", "--send-invoice", "--json"))
    answer(billed("bill", "--as-of", "2025-03-11T00:00:00Z", "--json"))
    found = answer(billed("invoice", "list", "--customer", "alba", "--json"))["invoices"]
    assert iban(old) == []
    assert iban(found[-1]["number"]) == [SELLER.iban]


def test_what_keeps_a_document_from_being_an_e_invoice_is_said(
    billed: Call, tmp_path: Path
) -> None:
    number = first(billed, "carla")
    refused = billed("invoice", "xml", number, "--format", "fatturapa")
    assert isinstance(refused.exception, Conflict)
    for what in ("address in parts", "postal code", "codice fiscale"):
        assert what in str(refused.exception)
    assert not (tmp_path / "home" / "invoices").exists()


def test_a_month_is_written_whole_by_any_number_of_processes(billed: Call, tmp_path: Path) -> None:
    wish = ("documents", "render", "--month", "2025-03", "--json")
    done = answer(billed(*wish, "--format", "pdf", "--format", "fatturapa"))
    folder = Path(done["folder"])
    assert (done["documents"], done["written"], done["refused"]) == (6, 8, 4)
    pdfs = {path.name: path.read_bytes() for path in folder.glob("*.pdf")}
    assert len(pdfs) == 6
    assert list(folder.glob(".*")) == []
    two = answer(billed(*wish, "--out", str(tmp_path / "two"), "--processes", "2"))
    assert {one.name: one.read_bytes() for one in Path(two["folder"]).iterdir()} == pdfs
    (folder / "CVG-2025-000001.pdf").unlink()
    again = answer(billed(*wish, "--missing"))
    assert (again["written"], again["kept"]) == (1, 5)
    assert {path.name: path.read_bytes() for path in folder.glob("*.pdf")} == pdfs
    assert answer(billed("documents", "render", "--month", "2025-02", "--json"))["documents"] == 0


def test_the_worker_writes_what_is_new_and_leaves_what_is_there(
    billed: Call, database: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kept"
    keks = (tmp_path / "home" / "kek").read_text()
    settings = Settings(
        home=str(tmp_path / "home"), kek=Secret(keks), seller=SELLER, documents_folder=str(folder)
    )
    clock = VirtualClock(datetime(2025, 4, 2, tzinfo=UTC))
    with opened(settings, url=database.dsn, clock=clock, migrated=True) as product:
        chore = chores(product)["convergio.render_documents"]
        chore.work()
        assert len(list((folder / "2025-03").glob("*.pdf"))) == 6
        assert not (folder / "2025-04").exists()
        with database.transaction() as tx:
            sealed = tx.value("SELECT sealed_buyer FROM invoice WHERE number = 2")
        capfd.readouterr()
        (folder / "2025-03" / "CVG-2025-000001.pdf").write_bytes(b"as it was")
        (folder / "2025-03" / "CVG-2025-000002.pdf").unlink()
        (folder / "2025-03" / "CVG-2025-000003.pdf").unlink()
        with database.transaction() as tx:
            tx.raw.execute("UPDATE invoice SET sealed_buyer = 'x' WHERE number = 2")
        chore.work()
        assert "CVG-2025-000002" in "".join(capfd.readouterr())
        assert len(list((folder / "2025-03").glob("*.pdf"))) == 5
        with database.transaction() as tx:
            tx.raw.execute("UPDATE invoice SET sealed_buyer = %s WHERE number = 2", (sealed,))
        chore.work()
        assert "CVG-2025-000002" not in "".join(capfd.readouterr())
    assert (folder / "2025-03" / "CVG-2025-000001.pdf").read_bytes() == b"as it was"
    assert len(list((folder / "2025-03").glob("*.pdf"))) == 6


@pytest.mark.parametrize("month", ["2025-13", "march", "2025-3", "2025-03-01"])
def test_a_month_that_is_none_is_refused(call: Call, month: str, tmp_path: Path) -> None:
    assert isinstance(call("documents", "render", "--month", month).exception, Invalid)
    assert not (tmp_path / "home" / "documents").exists()


@pytest.mark.parametrize("number", ["CVG-CN-2025-000009", "CVG-2025-000009"])
def test_a_document_that_is_not_there_is_not_found(call: Call, number: str) -> None:
    assert isinstance(call("invoice", "pdf", number).exception, NotFound)
    assert isinstance(call("invoice", "xml", number).exception, NotFound)


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    home = tmp_path_factory.mktemp("home")
    with running(server, template, home, seller=SELLER) as found:
        yield found


def issued(api: Api, name: str) -> str:
    """Put a customer on a plan, bill the first fee and return the number of the invoice."""
    with api.product.database.transaction() as tx:
        found = customers.find(tx, name).customer_id
        subscriptions.create(tx, customer_id=found, plan_key="pro", start=api.now, now=api.now)
    billing.run(
        api.product.database,
        as_of=api.now,
        now=api.now,
        seller=SELLER,
        keyring=api.product.keyring,
        grace=timedelta(0),
    )
    with api.product.database.transaction() as tx:
        return billing.page(tx, customer_id=found)[0].number_text


def test_documents_are_answered_as_files_and_only_to_whom_they_concern(api: Api) -> None:
    untaxed = api.billed()
    refused = api.get(f"/v1/invoices/{untaxed}/xml")
    assert (refused.status_code, refused.json()["code"]) == (409, "no_e_invoice")
    with api.product.database.transaction() as tx:
        taxes.apply(tx, TAXES, now=api.now)
    name, customer_id = api.customer()
    address = {"country": "IT", "street": "Via Roma 1", "postal_code": "00144", "city": "Roma"}
    changed = api.send("PATCH", f"/v1/customers/{name}", address)
    assert changed.status_code == 200, changed.text
    number = issued(api, name)
    credited = api.send(
        "POST", f"/v1/invoices/{number}/credit", {"reason": "Delay", "amount": "1.00"}
    )
    assert credited.status_code == 201, credited.text
    note = credited.json()["number"]
    own = api.key(Scope.INVOICES_READ, customer_id=customer_id)
    _, stranger = api.customer()
    other = api.key(Scope.INVOICES_READ, customer_id=stranger)
    for path in (f"/v1/invoices/{number}", f"/v1/credit-notes/{note}"):
        pdf = api.get(f"{path}/pdf", key=own)
        assert pdf.headers["content-type"] == "application/pdf"
        assert pdf.content.startswith(b"%PDF-1.7")
        xml = api.get(f"{path}/xml", key=own)
        assert xml.headers["content-type"].startswith("application/xml")
        assert schemas.en_16931(xml.content) == []
        assert api.get(f"{path}/xml?format=fatturapa", key=own).status_code == 409  # dollars
        assert api.get(f"{path}/xml?format=word", key=own).status_code in {400, 422}
        for kind in ("pdf", "xml"):
            assert api.get(f"{path}/{kind}", key=other).status_code == 404


def test_a_customer_is_changed_over_http_and_a_wrong_change_is_named(api: Api) -> None:
    name, _ = api.customer()
    half = api.send("PATCH", f"/v1/customers/{name}", {"street": "Via Roma 1"})
    assert (half.status_code, half.json()["field"]) == (422, "city")
    unknown = api.send("PATCH", f"/v1/customers/{name}", {"is_admin": True})
    assert unknown.status_code == 422
    api.send("PATCH", f"/v1/customers/{name}", {"name": "Ada", "purchase_order": "PO-1"})
    shown = api.get(f"/v1/customers/{name}").json()
    assert (shown["name"], shown["purchase_order"], shown["street"]) == ("Ada", "PO-1", None)
    api.send("PATCH", f"/v1/customers/{name}", {"purchase_order": None})
    shown = api.get(f"/v1/customers/{name}").json()
    assert (shown["name"], shown["purchase_order"], shown["country"]) == ("Ada", None, None)
