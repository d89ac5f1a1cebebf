"""The migrated schema is the one that was meant, and keeps the data rules of DESIGN section 4.

`tests/arch/schema.txt` is that schema in words; `make schema` rewrites it, so that a migration
shows in review as what it changes.
"""

import os
import re
from collections.abc import Iterable
from typing import LiteralString

import pytest

from convergio.infra.db import Tx
from tests.arch import house

SNAPSHOT = house.TESTS / "arch" / "schema.txt"

# Tables that do not grow with customers, or are local on purpose: docs/adr/0003.
NOT_DISTRIBUTED = {
    "api_key": "found by its hash before a customer is known; as many as the seller's systems",
    "billing_page": "a row for a thousand customers and run; old ones are deleted",
    "billing_run": "one row a run of the whole house",
    "catalog_state": "reference: one row",
    "coupon": "reference: offers; the count of a limit in all is one row by its nature",
    "customer_directory": "finds the customer, so it cannot be keyed by it",
    "event_type": "reference: the catalog",
    "exchange_rate": "reference: published rates, imported by hand",
    "invoice_series": "one counter a series and year: numbers are gapless over all customers",
    "meter": "reference: the catalog",
    "meter_version": "reference: the catalog",
    "outbox_event": "local queue, read in one order whoever the customer is",
    "plan": "reference: the catalog",
    "plan_price": "reference: the catalog",
    "price": "reference: the catalog",
    "retention_key": "reference: a few keys of the seller",
    "seller_version": "reference: the seller's own settings, a row when they change",
    "tax_rate": "reference: the tax file",
    "tax_registration": "reference: the tax file",
    "tax_state": "reference: one row",
    "usage_retention": "one row: the boundary of the whole house",
    "sandbox.charge": "belongs to the sandbox processor, which knows no customers of ours",
}
# Alembic and procrastinate own these.
FOREIGN = re.compile(r"(alembic_version$|procrastinate_)")

OURS: LiteralString = """
    SELECT c.oid, CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        AND n.nspname NOT LIKE 'pg_toast%%'
    ORDER BY n.nspname <> 'public', n.nspname, c.relname"""
COLUMNS: LiteralString = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
        pg_get_expr(d.adbin, d.adrelid),
        CASE WHEN a.attcollation <> t.typcollation THEN l.collname::text END
    FROM pg_attribute AS a
    JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
    WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum"""
# PostgreSQL 18 also lists NOT NULL here ('n'); the columns say it already.
CONSTRAINTS: LiteralString = """
    SELECT conname, contype::text, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid = %(table)s AND contype <> 'n' ORDER BY conname"""
INDEXES: LiteralString = """
    SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), i.indisunique,
        (SELECT array_agg(pg_get_indexdef(i.indexrelid, place, true) ORDER BY place)
         FROM generate_series(1, i.indnkeyatts) AS place)
    FROM pg_index AS i WHERE i.indrelid = %(table)s ORDER BY 1"""
FOREIGN_KEYS: LiteralString = """
    SELECT k.conname, k.confrelid,
        (SELECT a.attname FROM pg_attribute AS a
         WHERE a.attrelid = k.conrelid AND a.attnum = k.conkey[1])
    FROM pg_constraint AS k WHERE k.conrelid = %(table)s AND k.contype = 'f' ORDER BY k.conname"""
KEY_TEXTS: LiteralString = """
    SELECT DISTINCT i.indrelid::regclass::text || '.' || a.attname
    FROM pg_index AS i
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
    JOIN pg_collation AS l ON l.oid = a.attcollation
    WHERE i.indrelid = ANY(%(tables)s) AND l.collname <> 'C' ORDER BY 1"""
TRIGGERS: LiteralString = """
    SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2"""

Table = tuple[int, str]


@pytest.fixture
def tables(tx: Tx) -> list[Table]:
    """Every table that our own migrations made."""
    found = [(int(oid), str(name)) for oid, name in tx.tuples(OURS)]
    return [(oid, name) for oid, name in found if not FOREIGN.match(name)]


def column_names(tx: Tx, oid: int) -> list[str]:
    return [str(row[0]) for row in tx.tuples(COLUMNS, table=oid)]


def distributed(tables: Iterable[Table]) -> list[Table]:
    return [(oid, name) for oid, name in tables if name not in NOT_DISTRIBUTED]


def test_every_table_is_keyed_by_customer_or_named_with_a_reason(
    tx: Tx, tables: list[Table]
) -> None:
    lost = [n for oid, n in distributed(tables) if "customer_id" not in column_names(tx, oid)]
    assert not lost


def test_no_reason_outlives_its_table(tables: list[Table]) -> None:
    assert set(NOT_DISTRIBUTED) <= {name for _, name in tables}


def test_primary_and_unique_keys_begin_with_the_customer(tx: Tx, tables: list[Table]) -> None:
    wrong = [
        f"{table}: {name} {keys}"
        for oid, table in distributed(tables)
        for name, _, unique, keys in tx.tuples(INDEXES, table=oid)
        if unique and keys[0] != "customer_id"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_table_has_a_primary_key(tx: Tx, tables: list[Table]) -> None:
    without = [
        name
        for oid, name in tables
        if "p" not in {kind for _, kind, _ in tx.tuples(CONSTRAINTS, table=oid)}
    ]
    assert not without


def test_periods_that_may_not_overlap_are_compared_within_one_customer(
    tx: Tx, tables: list[Table]
) -> None:
    wrong = [
        f"{table}: {name}: {text}"
        for oid, table in distributed(tables)
        for name, kind, text in tx.tuples(CONSTRAINTS, table=oid)
        if kind == "x" and "(customer_id WITH =," not in text
    ]
    assert not wrong, "\n".join(wrong)


def test_foreign_keys_stay_with_the_customer_or_point_at_reference_tables(
    tx: Tx, tables: list[Table]
) -> None:
    names = dict(tables)
    wrong = [
        f"{table}: {name}"
        for oid, table in tables
        for name, target, first in tx.tuples(FOREIGN_KEYS, table=oid)
        if names[target] not in NOT_DISTRIBUTED
        and (table in NOT_DISTRIBUTED or first != "customer_id")
    ]
    assert not wrong, "\n".join(wrong)


def test_text_that_is_a_key_sorts_by_its_bytes(tx: Tx, tables: list[Table]) -> None:
    rows = tx.tuples(KEY_TEXTS, tables=[oid for oid, _ in tables])
    assert [name for (name,) in rows] == []


def test_no_column_holds_a_float_a_local_time_or_an_unbounded_number(
    tx: Tx, tables: list[Table]
) -> None:
    banned = re.compile(r"(real|double precision|money|timestamp without|time without|numeric$)")
    wrong = [
        f"{table}.{column} {kind}"
        for oid, table in tables
        for column, kind, *_ in tx.tuples(COLUMNS, table=oid)
        if banned.match(kind)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_quantity_refuses_what_is_not_a_number(tx: Tx, tables: list[Table]) -> None:
    wrong = []
    for oid, table in tables:
        checks = " ".join(
            text for _, kind, text in tx.tuples(CONSTRAINTS, table=oid) if kind == "c"
        )
        wrong += [
            f"{table}.{column}"
            for column, kind, *_ in tx.tuples(COLUMNS, table=oid)
            if kind.startswith("numeric") and not re.search(rf"\b{column} < 'NaN'::numeric", checks)
        ]
    assert not wrong


def test_the_only_triggers_are_those_of_the_job_queue(tx: Tx) -> None:
    ours = [row for row in tx.tuples(TRIGGERS) if not str(row[0]).startswith("procrastinate_")]
    assert not ours


def described(tx: Tx, tables: list[Table]) -> str:
    """Return the schema in words: one block a table, nothing that depends on the server."""
    blocks = []
    for oid, table in tables:
        block = [f"table {table}"]
        for name, kind, required, identity, default, collation in tx.tuples(COLUMNS, table=oid):
            words = [f"    {name} {kind}", f"collate {collation}" if collation else ""]
            words += ["not null" if required else "", f"default {default}" if default else ""]
            words += [{"a": "always identity", "d": "default identity"}.get(identity, "")]
            block.append(" ".join(word for word in words if word))
        constraints = tx.tuples(CONSTRAINTS, table=oid)
        block += [f"    {name}: {text}" for name, _, text in constraints]
        named = {name for name, *_ in constraints}
        block += [
            f"    {text}"
            for name, text, *_ in tx.tuples(INDEXES, table=oid)
            if name.split(".")[-1] not in named
        ]
        blocks.append("\n".join(block))
    return "\n\n".join(blocks) + "\n"


def test_the_schema_is_the_snapshot(tx: Tx, tables: list[Table]) -> None:
    found = described(tx, tables)
    if os.environ.get("SCHEMA_SNAPSHOT") == "write":
        SNAPSHOT.write_text(found, encoding="utf-8")
    assert SNAPSHOT.read_text(encoding="utf-8") == found, "run `make schema` and read its diff"
