"""`convergio documents`: write every invoice and credit note of a month, on all processors."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from convergio.billing import rendering
from convergio.billing.rendering import Format, Rendered
from convergio.cli import console
from convergio.cli.opening import opened
from convergio.kernel.errors import Invalid

EXAMPLE: Final = "convergio documents render --month 2025-03 --out documents"
FOLDER: Final = "documents"
_MONTH: Final = re.compile(r"(2[0-9]{3})-(0[1-9]|1[0-2])", re.ASCII)

app = console.command_app("Write the documents of a month as PDF and XML.", EXAMPLE)


@app.callback()
def root() -> None:
    """Keep `render` a word of its own."""


@app.command(epilog=f"Example: {EXAMPLE}")
def render(
    *,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month of issue.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Default: documents/YYYY-MM in CONVERGIO_HOME."),
    ] = None,
    form: Annotated[
        list[Format] | None, typer.Option("--format", help="Repeatable; default pdf.")
    ] = None,
    missing: Annotated[bool, typer.Option(help="Leave files alone that are there.")] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Default: one a processor.")
    ] = None,
    as_json: console.Json = False,
) -> None:
    """Write every document that was issued in a month; safe to stop and to run again."""
    year_month = _month(month)
    with opened() as product:
        folder = out or product.settings.home_path / FOLDER / month
        wish = rendering.month_of(*year_month, folder, form or [Format.PDF])
        wish = replace(wish, missing_only=missing)
        with product.database.transaction() as tx:
            pages = rendering.pages_of(tx, wish)
        total = sum(page.size for page in pages)
        with console.progress("Rendering documents", total) as advance:
            done = rendering.render(
                product.database,
                product.keyring,
                product.settings.seller,
                wish,
                pages,
                workers=processes or len(os.sched_getaffinity(0)),
                progress=advance,
            )
    console.emit(_value(done, folder), as_json=as_json, text=_text(done, folder))


def _month(text: str) -> tuple[int, int]:
    """Return the year and the month."""
    found = _MONTH.fullmatch(text)
    if found is None:
        detail = "write a year and a month, such as 2025-03"
        raise Invalid(detail, code="bad_month", field="--month")
    return int(found[1]), int(found[2])


def _value(done: Rendered, folder: Path) -> dict[str, Any]:
    return {
        "documents": done.documents,
        "written": done.written,
        "kept": done.kept,
        "refused": done.refused,
        "broken": done.broken,
        "folder": str(folder),
    }


def _text(done: Rendered, folder: Path) -> str:
    text = f"{done.documents:,} documents: {done.written:,} files written to {folder}"
    if done.kept:
        text += f", {done.kept:,} were there"
    if done.refused:
        text += f"; {done.refused:,} cannot be e-invoices (convergio invoice xml NUMBER says why)"
    for number, why in sorted(done.broken.items()):
        text += f"\n{number} could not be written, and is tried again next time: {why}"
    return text
