"""Revisions are linted, forward-only and beside their SQL."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.arch import house

SCRIPTS = sorted(house.MIGRATIONS.glob("*.sql"))
REVISIONS = sorted(house.MIGRATIONS.glob("r*.py"))


def test_squawk_finds_nothing_in_any_revision() -> None:
    assert SCRIPTS
    squawk = Path(sys.executable).with_name("squawk")
    found = subprocess.run(
        [squawk, *SCRIPTS], cwd=house.ROOT, check=False, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_script_is_run_by_the_revision_of_its_name() -> None:
    assert {path.stem for path in SCRIPTS} <= {path.stem for path in REVISIONS}


def test_no_revision_goes_back() -> None:
    back = [
        house.shown(path)
        for path in REVISIONS
        for node in ast.walk(house.tree(path))
        if isinstance(node, ast.FunctionDef) and node.name == "downgrade"
    ]
    assert not back


def test_revisions_form_one_line() -> None:
    links = [_links(path) for path in REVISIONS]
    numbers = [number for number, _ in links]
    assert numbers == sorted(set(numbers))
    assert [previous for _, previous in links] == [None, *numbers[:-1]]


def _links(path: Path) -> tuple[str, str | None]:
    """Return the revision's number and the one before it."""
    values = {
        target.id: node.value.value
        for node in house.tree(path).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    previous = values["down_revision"]
    return str(values["revision"]), None if previous is None else str(previous)
