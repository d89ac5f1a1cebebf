"""Customers on a real database: made once, found every way, their personal data sealed."""

import base64
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import pytest

from convergio.crypto import rules as crypto_rules
from convergio.crypto.actions import Keyring
from convergio.crypto.errors import DamagedSeal
from convergio.customers import actions, personal
from convergio.customers.errors import CustomerExists, CustomerNotFound, TaxNumberChanged
from convergio.customers.model import Personal, TaxNumber
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database, Raw, Row, Tx
from convergio.infra.ids import typeid
from convergio.kernel.errors import Invalid
from tests.fakes.statements import counting

PARTS = {
    "street": "Mill Lane 5",
    "postal_code": "LS1 4AP",
    "city": "Leeds",
    "region": "Yorkshire",
    "sdi_code": "CVG4711",
    "pec": "ada@pec.example",
    "purchase_order": "PO-0815",
}
ADA = {
    "name": "Ada Lovelace",
    "email": "Ada@Example.com",
    "address": "1 High Street\nOxford",
    "tax_id": "IT00743110157",
}


class Counting(Tx):
    """A transaction that counts its reads."""

    __slots__ = ("queries",)

    def __init__(self, raw: Raw) -> None:
        """Begin at none."""
        super().__init__(raw)
        self.queries = 0

    def many(self, query: LiteralString, row: type[Row], **values: object) -> list[Row]:
        self.queries += 1
        return super().many(query, row, **values)

    def tuples(self, query: LiteralString, **values: object) -> list[tuple[Any, ...]]:
        self.queries += 1
        return super().tuples(query, **values)


@pytest.fixture
def keyring(now: datetime) -> Keyring:
    text = base64.b64encode(bytes(range(32))).decode()
    return Keyring(crypto_rules.parse_keks(text), clock=VirtualClock(now))


def counted(tx: Tx) -> dict[str, int]:
    query = (
        "SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM customer_directory),"
        " (SELECT count(*) FROM outbox_event WHERE type = 'customer.created')"
    )
    row = tx.raw.execute(query).fetchone()
    assert row is not None
    return dict(zip(("customers", "directory", "facts"), row, strict=True))


def test_a_customer_is_found_by_key_by_id_and_by_email(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    made = actions.create(tx, keyring, key="acme", now=now, country="IT", locale="it", **ADA)
    assert actions.find(tx, "acme") == made
    assert actions.find(tx, typeid("cus", made.customer_id)) == made
    assert actions.get(tx, made.customer_id) == made
    assert actions.find_by_email(tx, keyring, "ada@EXAMPLE.com") == [made]
    assert actions.find_by_email(tx, keyring, "eve@example.com") == []
    assert counted(tx) == {"customers": 1, "directory": 1, "facts": 1}


def test_personal_data_come_back_as_they_were_given(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    full = actions.create(tx, keyring, key="full", now=now, **ADA)
    bare = actions.create(tx, keyring, key="bare", now=now)
    assert actions.personal(tx, keyring, full.customer_id) == Personal(**ADA)
    assert actions.personal(tx, keyring, bare.customer_id) == Personal()
    with pytest.raises(CustomerNotFound):
        actions.personal(tx, keyring, uuid4())


def test_cry_09_nothing_in_the_database_holds_personal_data_in_the_clear(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    actions.create(tx, keyring, key="acme", now=now, **ADA)
    tables = tx.raw.execute(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    ).fetchall()
    dump = b""
    for (table,) in tables:
        with tx.raw.cursor() as cursor, cursor.copy(f'COPY "{table}" TO STDOUT') as rows:
            dump += b"".join(bytes(row) for row in rows)
    assert b"acme" in dump
    for text in ("Lovelace", "xample.com", "High Street", "00743110157"):
        for form in (text.encode(), text.lower().encode(), text.encode().hex().encode()):
            assert form not in dump


def test_cry_01_a_sealed_field_swapped_in_the_database_is_not_shown(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as tx:
        ada = actions.create(tx, keyring, key="ada", now=now, **ADA)
        eve = actions.create(tx, keyring, key="eve", now=now, name="Eve", email="eve@example.com")
    eves_own_email = "UPDATE customer SET sealed_name = sealed_email WHERE customer_id = %s"
    adas_name = (
        "UPDATE customer SET sealed_name = (SELECT sealed_name FROM customer"
        " WHERE customer_key = 'ada') WHERE customer_id = %s"
    )
    one_bit = (
        "UPDATE customer SET sealed_name = set_byte(sealed_name, 20,"
        " get_byte(sealed_name, 20) # 1) WHERE customer_id = %s"
    )
    swaps = (
        (eves_own_email, eve.customer_id),
        (adas_name, eve.customer_id),
        (one_bit, ada.customer_id),
    )
    for statement, customer_id in swaps:
        with database.transaction() as tx:
            tx.raw.execute(statement.encode(), [customer_id])
            with pytest.raises(DamagedSeal, match="sealed_name"):
                actions.personal(tx, keyring, customer_id)


def test_an_address_in_parts_and_the_way_of_e_invoices_are_sealed_too(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    made = actions.create(tx, keyring, key="acme", now=now, country="GB", **ADA, **PARTS)
    assert actions.personal(tx, keyring, made.customer_id) == Personal(**ADA, **PARTS)
    both = actions.personal_many(tx, keyring, [made.customer_id])
    assert both == {made.customer_id: Personal(**ADA, **PARTS)}
    with tx.raw.cursor() as cursor, cursor.copy("COPY customer TO STDOUT") as rows:
        dump = b"".join(bytes(row) for row in rows)
    for text in PARTS.values():
        assert text.encode() not in dump
        assert text.encode().hex().encode() not in dump


def test_a_change_keeps_what_it_does_not_name_and_forgets_what_is_none(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    made = actions.create(tx, keyring, key="acme", now=now, country="GB", **ADA, **PARTS)
    later = now + timedelta(days=1)
    changed = actions.update(
        tx, keyring, made.customer_id, now=later, email="eve@example.com", pec=None, locale="it"
    )
    assert (changed.country, changed.locale, changed.updated_at) == ("GB", "it", later)
    assert actions.get(tx, made.customer_id) == changed
    expected = Personal(**(ADA | PARTS | {"email": "eve@example.com", "pec": None}))
    assert actions.personal(tx, keyring, made.customer_id) == expected
    assert actions.find_by_email(tx, keyring, "eve@example.com") == [changed]
    assert actions.find_by_email(tx, keyring, "ada@example.com") == []
    facts = tx.raw.execute("SELECT type, data FROM outbox_event ORDER BY outbox_id").fetchall()
    assert facts == [("customer.created", {}), ("customer.updated", {})]


def test_a_wrong_change_changes_nothing(tx: Tx, keyring: Keyring, now: datetime) -> None:
    made = actions.create(tx, keyring, key="acme", now=now, country="GB", **ADA, **PARTS)
    for wrong in ({"city": None}, {"country": "Italy"}, {"sdi_code": "x"}, {"tax_exempt": "?"}):
        with pytest.raises(Invalid):
            actions.update(tx, keyring, made.customer_id, now=now, **wrong)
    assert actions.get(tx, made.customer_id) == made
    assert actions.personal(tx, keyring, made.customer_id) == Personal(**ADA, **PARTS)
    with pytest.raises(CustomerNotFound):
        actions.update(tx, keyring, uuid4(), now=now, name="Nobody")


def test_another_tax_id_is_one_that_nobody_verified(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    made = actions.create(tx, keyring, key="acme", now=now, **ADA)
    who = made.customer_id
    assert made.tax_id_verified_at is None
    seen = actions.set_tax_id_verified(tx, keyring, who, verified=True, now=now)
    assert seen.tax_id_verified_at == now
    assert actions.update(tx, keyring, who, now=now, name="Ada").tax_id_verified_at == now
    assert actions.update(tx, keyring, who, now=now, tax_id="GB1").tax_id_verified_at is None
    assert actions.personal(tx, keyring, who).tax_id == "GB1"
    actions.update(tx, keyring, who, now=now, tax_id=None)
    with pytest.raises(Invalid, match="no tax id"):
        actions.set_tax_id_verified(tx, keyring, who, verified=True, now=now)


def test_a_tax_id_that_was_seen_in_one_country_is_not_one_of_another(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    who = actions.create(tx, keyring, key="acme", now=now, country="GB", **ADA).customer_id
    actions.set_tax_id_verified(tx, keyring, who, verified=True, now=now)
    assert actions.update(tx, keyring, who, now=now, country="GB").tax_id_verified_at == now
    for country in ("FR", "GB", None):
        assert actions.update(tx, keyring, who, now=now, country=country).tax_id_verified_at is None


def test_what_was_checked_is_what_becomes_verified(tx: Tx, keyring: Keyring, now: datetime) -> None:
    made = actions.create(tx, keyring, key="acme", now=now, country="GB", **ADA)
    who, number = made.customer_id, ADA["tax_id"]
    for other in (TaxNumber("GB", "GB1"), TaxNumber("FR", number), TaxNumber("GB", None)):
        for verified in (True, False):
            with pytest.raises(TaxNumberChanged, match="check again"):
                actions.set_tax_id_verified(
                    tx, keyring, who, verified=verified, now=now, checked=other
                )
    assert actions.get(tx, who) == made
    seen = actions.set_tax_id_verified(
        tx, keyring, who, verified=True, now=now, checked=TaxNumber("GB", number)
    )
    assert seen.tax_id_verified_at == now


def test_a_country_that_is_not_named_stays_as_it_was_written(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    who = actions.create(tx, keyring, key="acme", now=now, country="GB").customer_id
    tx.raw.execute("UPDATE customer SET country = 'XX'")  # from before the codes were looked at
    assert actions.update(tx, keyring, who, now=now, name="Acme").country == "XX"
    with pytest.raises(Invalid, match="ISO 3166-1"):
        actions.update(tx, keyring, who, now=now, country="XX")


def test_a_taken_key_is_a_conflict_and_changes_nothing(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as tx:
        first = actions.create(tx, keyring, key="acme", now=now)
    with pytest.raises(CustomerExists), database.transaction() as tx:
        actions.create(tx, keyring, key="acme", now=now, currency="eur", **ADA)
    with database.transaction() as tx:
        assert actions.find(tx, "acme") == first
        assert actions.personal(tx, keyring, first.customer_id) == Personal()
        assert counted(tx) == {"customers": 1, "directory": 1, "facts": 1}


@pytest.mark.parametrize(
    "values",
    [
        {"key": "a\x00"}, {"key": ""}, {"key": "x" * 10_000}, {"key": "\ud800"},
        {"currency": "xxx"},
        {"email": "nobody"}, {"name": "a\x00"}, {"country": "Italy"}, {"locale": "?"},
        {"key": "cus_" + "0" * 26},
    ],
)  # fmt: skip
def test_a_wrong_value_makes_no_customer(
    tx: Tx, keyring: Keyring, now: datetime, values: dict[str, Any]
) -> None:
    with pytest.raises(Invalid):
        actions.create(tx, keyring, **{"key": "acme", "now": now, **values})
    assert counted(tx) == {"customers": 0, "directory": 0, "facts": 0}


@pytest.mark.parametrize("text", ["nobody", "a\x00", "\ud800", "", "cus_" + "0" * 26, "cus_"])
def test_looking_for_nobody_is_not_found_and_no_crash(tx: Tx, text: str) -> None:
    with pytest.raises(CustomerNotFound):
        actions.find(tx, text)


def test_many_are_made_at_once_and_the_known_ones_keep_their_ids(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    known = actions.create(tx, keyring, key="k1", now=now)
    keys = [f"k{number}" for number in range(5)] + ["k1", "k2"]
    ids = actions.create_many(tx, keys, now=now)
    assert set(ids) == {f"k{number}" for number in range(5)}
    assert ids["k1"] == known.customer_id
    assert actions.create_many(tx, keys, now=now) == ids
    assert actions.ids_by_key(tx, [*keys, "unknown", "a\x00", "\ud800"]) == ids
    assert actions.create_many(tx, [], now=now) == {}
    assert counted(tx) == {"customers": 5, "directory": 5, "facts": 5}
    accounts = actions.get_many(tx, list(ids.values()))
    assert {who: one.currency for who, one in accounts.items()} == dict.fromkeys(
        ids.values(), "usd"
    )


def test_one_wrong_key_of_many_makes_none(tx: Tx, now: datetime) -> None:
    with pytest.raises(Invalid):
        actions.create_many(tx, ["fine", "a\x00"], now=now)
    assert counted(tx) == {"customers": 0, "directory": 0, "facts": 0}


def test_one_of_many_that_is_not_there_is_not_found(tx: Tx, now: datetime) -> None:
    ids = actions.create_many(tx, ["acme"], now=now)
    with pytest.raises(CustomerNotFound):
        actions.get_many(tx, [*ids.values(), UUID(int=1)])


def test_personal_data_of_many_are_read_in_two_queries(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as tx:
        bare = actions.create(tx, keyring, key="bare", now=now).customer_id
        named = [
            actions.create(tx, keyring, key=f"k{n}", now=now, name=f"N{n}").customer_id
            for n in range(20)
        ]
    with database.transaction() as tx:
        counting = Counting(tx.raw)
        found = actions.personal_many(counting, keyring, [bare, *named])
        assert counting.queries == 2
    assert found == {who: Personal(name=f"N{n}") for n, who in enumerate(named)}


def test_writers_that_make_the_same_customers_at_once_all_get_the_same_ids(
    database: Database, now: datetime
) -> None:
    def write(turn: int) -> dict[str, UUID]:
        keys = [f"k{number}" for number in range(turn * 50, turn * 50 + 300)]
        with database.transaction() as tx:
            return actions.create_many(tx, keys, now=now)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(write, [0, 1, 2, 0]))
    with database.transaction() as tx:
        kept = actions.ids_by_key(tx, [f"k{number}" for number in range(400)])
        assert counted(tx) == {"customers": 400, "directory": 400, "facts": 400}
        for answer in answers:
            assert answer.items() <= kept.items()
            assert len(actions.get_many(tx, list(answer.values()))) == 300


def test_four_thousand_customers_are_made_in_a_few_statements(
    database: Database, now: datetime
) -> None:
    with database.transaction() as tx, counting() as sent:
        ids = actions.create_many(tx, [f"user-{number}" for number in range(4_247)], now=now)
    assert len(set(ids.values())) == 4_247
    assert 0 < len(sent) <= 20


def test_pages_list_every_customer_once(tx: Tx, now: datetime) -> None:
    ids = actions.create_many(tx, [f"k{number}" for number in range(5)], now=now)
    first = actions.page(tx, size_max=3)
    rest = actions.page(tx, after=first[-1].customer_id, size_max=3)
    assert [it.customer_id for it in first + rest] == sorted(ids.values())


def test_a_fact_about_a_customer_carries_no_personal_data_and_no_key(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    made = actions.create(tx, keyring, key="ada@example.com", now=now, **ADA)
    row = tx.raw.execute("SELECT customer_id, subject, data FROM outbox_event").fetchone()
    assert row == (made.customer_id, made.customer_id, {})


def test_the_data_map_names_every_sealed_column_of_the_table(tx: Tx) -> None:
    columns = tx.raw.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'customer'"
    ).fetchall()
    sealed = {name for (name,) in columns if name.startswith("sealed_")}
    mapped = {it.column for it in personal.COLUMNS if it.sealed_under == "customer"}
    assert mapped == sealed
