"""A change is begun again when it met another one, so no edge opens a plain transaction for it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arch import house

API = house.SERVER / "api"
CLI = house.SERVER / "cli"
CHANGING = {"post", "put", "patch", "delete"}
# commands that only look; every other one hands its work to `opening.done` or a verb of a room
LOOKS = {
    "apikey": {"list_"},
    "archive": {"export", "retain"},
    "bench_stage": {"served", "check"},
    "bill": {"command"},
    "catalog": {"plan", "show"},
    "coupon": {"list_", "redeemed"},
    "customer": {"show", "list_", "history"},
    "demo": {"summary"},
    "doctor": {"_keys"},
    "documents": {"render"},
    "explain": {"command"},
    "grant": {"list_grants"},
    "invoice": {"list_", "credits", "_write_file"},
    "payment": {"list_"},
    "quota": {"list_leases"},
    "replay": {"_newcomers"},
    "subscription": {"show", "list_"},
    "tax": {"show", "rate", "checks", "exchange", "evidence"},
    "usage": {"usage"},
    "verify": {"verify"},
    "whatif": {"command"},
}


def opening(path: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions of a module that open a plain transaction."""
    for function in house.tree(path).body:
        if isinstance(function, ast.FunctionDef):
            calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
            names = {call.attr for call in calls if isinstance(call, ast.Attribute)}
            if names & {"transaction", "snapshot"}:
                yield function.name, function


def decorators(function: ast.FunctionDef) -> set[str]:
    """Return the names of a function's decorators."""
    found = (one.func if isinstance(one, ast.Call) else one for one in function.decorator_list)
    return {one.id for one in found if isinstance(one, ast.Name)}


@pytest.mark.parametrize("path", sorted(API.glob("*_routes.py")), ids=lambda path: path.stem)
def test_a_route_that_changes_something_opens_no_plain_transaction(path: Path) -> None:
    found = {name for name, function in opening(path) if decorators(function) & CHANGING}
    assert found <= {"plan_catalog"}  # which keeps nothing


@pytest.mark.parametrize("path", sorted(CLI.glob("*.py")), ids=lambda path: path.stem)
def test_only_commands_that_look_open_a_plain_transaction(path: Path) -> None:
    assert {name for name, _ in opening(path)} <= LOOKS.get(path.stem, set())


def test_the_list_of_commands_that_look_is_not_longer_than_it_must_be() -> None:
    for stem, names in LOOKS.items():
        assert names == {name for name, _ in opening(CLI / f"{stem}.py")}, stem
