"""The ground on which tests live simulated worlds: a copy of the session's template for each."""

import base64
import sys
from pathlib import Path

import pytest

from convergio.infra import postgres
from convergio.infra.settings import load_settings
from convergio.simulation import seeds
from convergio.simulation.seeds import Ground, Size


def ground(server: postgres.Embedded, template: str, home: Path) -> Ground:
    """Return where worlds are made, with a key of their own."""
    settings = load_settings(
        {
            "CONVERGIO_HOME": str(home),
            "CONVERGIO_KEK": base64.b64encode(bytes(32)).decode(),
            "CONVERGIO_LOG_LEVEL": "error",
        }
    )
    return Ground(settings, server.dsn("postgres"), server.dsn(template), home.name)


def check_found(here: Ground, seeds_max: int, size: Size, *, name: str, people: bool) -> None:
    """Fail unless one of the first seeds shows a difference, of people where only theirs count."""
    for seed in range(1, seeds_max + 1):
        found = [one for one in seeds.live(here, seed, size).found if not people or one.who != "-"]
        if found:
            sys.stdout.write(f"{name}: seed {seed}, {found[0]}\n")
            return
    pytest.fail(f"{seeds_max} seeds did not find it when {name.replace('_', ' ')}")
