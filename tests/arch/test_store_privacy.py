"""A table has one door: its domain's store. Nobody else imports it, and nobody else writes SQL."""

import ast
import re
import sys

from tests.arch import house

# Postgres drivers and what carries SQL past them.
DRIVERS = ("psycopg", "psycopg_pool", "sqlalchemy", "alembic", "aiosql")
# A statement, not an English sentence: the verb with the word that must follow it.
STATEMENT = re.compile(
    r"\A\s*(SELECT\s.+\sFROM\s|INSERT\s+INTO\s|UPDATE\s.+\sSET\s|DELETE\s+FROM\s"
    r"|CREATE\s+(TABLE|INDEX)\s|ALTER\s+TABLE\s|TRUNCATE\s|COPY\s.+\s(FROM|TO)\s)",
    re.DOTALL,
)
CODE = house.modules(house.SERVER)


def room(name: str) -> str:
    """Return the room of a dotted name: `convergio.billing.store.x` -> `billing`."""
    parts = name.split(".")
    return parts[1] if parts[0] == "convergio" and len(parts) > 1 else ""


def own_room(path: str) -> str:
    parts = path.split("/")  # src/convergio/<room>/...
    return parts[2].removesuffix(".py")


def test_a_store_is_imported_only_inside_its_own_domain() -> None:
    found = [
        f"{house.shown(path)}:{line}: {name}"
        for path in CODE
        for line, name in house.imports(path)
        if re.match(r"convergio\.\w+\.store(\.|$)", name)
        and room(name) != own_room(house.shown(path))
    ]
    assert not found, "\n".join(found)


def test_only_stores_and_infra_import_a_driver() -> None:
    found = [
        f"{house.shown(path)}:{line}: {name}"
        for path in CODE
        if own_room(house.shown(path)) != "infra" and path.name != "store.py"
        for line, name in house.imports(path)
        if name.split(".")[0] in DRIVERS
    ]
    assert not found, "\n".join(found)


def test_no_statement_is_written_outside_the_query_files() -> None:
    found = [
        f"{house.shown(path)}:{node.lineno}: {node.value.strip()[:60]}"
        for path in CODE
        if own_room(house.shown(path)) != "infra"
        for node in ast.walk(house.tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and STATEMENT.match(node.value)
    ]
    assert not found, "\n".join(found)


def test_a_connection_is_taken_out_of_its_transaction_only_in_infra() -> None:
    found = [
        f"{house.shown(path)}:{node.lineno}"
        for path in CODE
        if own_room(house.shown(path)) != "infra"
        for node in ast.walk(house.tree(path))
        if isinstance(node, ast.Attribute)
        and node.attr == "raw"
        and isinstance(node.value, ast.Name)
        and node.value.id == "tx"
    ]
    assert not found, "\n".join(found)


def test_the_client_needs_httpx_and_the_standard_library_only() -> None:
    allowed = {"httpx", "convergio_client", *sys.stdlib_module_names}
    found = [
        f"{house.shown(path)}:{line}: {name}"
        for path in house.modules(house.CLIENT)
        for line, name in house.imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert not found, "\n".join(found)
