"""`convergio migrate`: bring the database to the newest schema."""

from convergio.cli import console
from convergio.cli.opening import settings
from convergio.infra import migrate as migration
from convergio.infra.db import Database
from convergio.wiring import dsn

app = console.command_app(
    "Bring the database to the newest schema; harmless when it is there already.",
    "convergio migrate",
)


@app.command()
def run(as_json: console.Json = False) -> None:
    """Run every revision that the database lacks, one runner at a time."""
    url = dsn(settings())
    with Database(url, size_max=1) as database:
        before = migration.revision(database)
        migration.upgrade(url)
        after = migration.revision(database)
    text = f"schema at {after}" + ("" if before == after else f" (was {before or 'empty'})")
    console.emit({"before": before, "after": after}, as_json=as_json, text=text)
