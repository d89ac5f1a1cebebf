"""Every attack on metering, quotas and the API has a test, or is skipped by name with a reason."""

import ast
import json

import pytest

from tests.arch import house
from tests.conftest import SHARED
from tests.fakes.attack_rows import AREAS, BY_NUMBER, HERE, LATER, NAMED, NUMBERED

LIST = SHARED / "attacks.json"
ROWS = json.loads(LIST.read_text(encoding="utf-8")) if LIST.exists() else []
OURS = sorted(row["id"] for row in ROWS if row["id"].partition("-")[0] in AREAS)


def named_in(path: str) -> set[str]:
    """Return the names of a file's tests."""
    tree = house.tree(house.TESTS / path)
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def registered_in(path: str) -> set[str]:
    """Return the numbers that a file registers with `@attack("...", ...)`."""
    found = set()
    for node in ast.walk(house.tree(house.TESTS / path)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "attack":
            found |= {str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant)}
    return found


def named_for(number: str, path: str) -> set[str]:
    """Return the tests of a file whose names begin with a row's number."""
    start = f"test_{number.lower().replace('-', '_')}_"
    return {name for name in named_in(path) if name.startswith(start)}


@pytest.mark.skipif(not ROWS, reason="../shared/attacks.json does not exist here")
@pytest.mark.parametrize("number", OURS)
def test_a_row_of_the_list_has_its_test(number: str) -> None:
    if number in LATER:
        pytest.skip(f"{number}: {LATER[number]}")
    assert number in BY_NUMBER | NUMBERED.keys() | NAMED.keys()


def test_the_tests_that_are_named_exist_and_no_row_is_named_twice() -> None:
    assert registered_in(HERE) >= BY_NUMBER
    tables: list[frozenset[str]] = [BY_NUMBER, *(frozenset(t) for t in (NUMBERED, NAMED, LATER))]
    assert sum(map(len, tables)) == len(frozenset().union(*tables))
    for number, paths in NUMBERED.items():
        for path in paths:
            assert named_for(number, path), f"{number} has no test in {path}"
    for one in (name for names in NAMED.values() for name in names):
        path, _, name = one.partition("::")
        assert name in named_in(path), one
