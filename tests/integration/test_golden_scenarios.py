"""Golden scenarios: what a life of changes puts on dated invoice lines, exact to the cent."""

from pathlib import Path

import pytest

from convergio.infra.db import Database
from tests.fakes.scenarios import FOLDER, play

SCENARIOS = sorted(FOLDER.glob("*.toml"))


def check(database: Database, path: Path) -> None:
    """Play the scenario and compare everything that it says something about."""
    scenario, played = play(database, path)
    expected = scenario["expect"]
    found = {
        "invoices": played.invoices,
        "credit_notes": played.notes,
        "balance": played.balance,
        "statuses": played.statuses,
        "limits": played.limits,
        "totals": played.totals,
    }
    wanted = {"credit_notes": [], "balance": "0.00", **expected}
    assert {name: found[name] for name in wanted} == wanted, scenario["title"]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_bills_these_lines(database: Database, path: Path) -> None:
    check(database, path)


def test_every_scenario_says_what_it_shows() -> None:
    assert len(SCENARIOS) >= 8
