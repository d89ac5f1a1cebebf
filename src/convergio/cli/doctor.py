"""`convergio doctor`: check this machine, the settings and the database, and say what to mend."""

import shutil
import sys
from collections.abc import Callable

import typer

from convergio.cli import console
from convergio.cli.opening import settings
from convergio.crypto.actions import open_keyring
from convergio.infra import migrate
from convergio.infra.clock import SystemClock
from convergio.infra.db import Database
from convergio.infra.settings import Settings
from convergio.kernel.errors import ConvergioError
from convergio.wiring import dsn

app = console.command_app(
    "Check the settings, the disk, the database, its schema and the keys; exits with 1 when "
    "something needs mending.",
    "convergio doctor",
)
_FREE_MEGABYTES_MIN = 500
_POSTGRES_VERSION_MIN = 150_000


@app.command()
def doctor(as_json: console.Json = False) -> None:
    """Run every check, also after one that fails."""
    chosen = settings()
    checks: dict[str, Callable[[Settings], str]] = {
        "python": _python,
        "home": _home,
        "database": _database,
        "schema": _schema,
        "keys": _keys,
    }
    found = {}
    for name, check in checks.items():
        try:
            found[name] = ("ok", check(chosen))
        except ConvergioError as error:
            found[name] = ("mend", str(error))
    lines = [f"{state:5}{name:10}{what}" for name, (state, what) in found.items()]
    value = {name: {"state": state, "detail": what} for name, (state, what) in found.items()}
    console.emit(value, as_json=as_json, text="\n".join(lines))
    if any(state != "ok" for state, _ in found.values()):
        raise typer.Exit(1)


def _python(_: Settings) -> str:
    return sys.version.split()[0]


def _home(chosen: Settings) -> str:
    path = chosen.home_path
    path.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path).free // 1_000_000
    if free < _FREE_MEGABYTES_MIN:
        raise ConvergioError(f"only {free} MB are free at {path}; make room")
    return f"{path}, {free} MB free"


def _database(chosen: Settings) -> str:
    with Database(dsn(chosen), size_max=1) as database:
        version = database.server_version()
    if version < _POSTGRES_VERSION_MIN:
        raise ConvergioError(f"PostgreSQL {version // 10_000} is too old; 15 or newer is needed")
    kind = "set by DATABASE_URL" if chosen.database_url else "embedded"
    return f"PostgreSQL {version // 10_000}.{version % 10_000}, {kind}"


def _schema(chosen: Settings) -> str:
    with Database(dsn(chosen), size_max=1) as database:
        found = migrate.revision(database)
    if found != migrate.NEWEST:
        raise ConvergioError(
            f"at {found or 'nothing'}, not {migrate.NEWEST}; run `convergio migrate`"
        )
    return found


def _keys(chosen: Settings) -> str:
    _schema(chosen)
    kek = chosen.kek.reveal() if chosen.kek else None
    keyring = open_keyring(kek=kek, file=chosen.home_path / "kek", clock=SystemClock())
    with Database(dsn(chosen), size_max=1) as database, database.transaction() as tx:
        keyring.prepare(tx)
    return "the key-encryption key opens what is stored"
