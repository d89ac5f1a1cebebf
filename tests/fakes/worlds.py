"""The ground on which tests live simulated worlds: a copy of the session's template for each."""

import base64
from pathlib import Path

from convergio.infra import postgres
from convergio.infra.settings import load_settings
from convergio.simulation.seeds import Ground


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
