"""`convergio recompute`: owed less billed for everything, closed periods too; and its mend."""

from typing import Annotated, Final

import typer

from convergio.billing import jobs
from convergio.cli import console
from convergio.cli.opening import opened
from convergio.infra.ids import typeid

EXAMPLE: Final = "convergio recompute --reopen"

app = console.command_app("Compare owed and billed of everything, closed periods too.", EXAMPLE)


@app.command()
def command(
    *,
    reopen: Annotated[
        bool, typer.Option(help="Let the next run bill what differs, of either sign.")
    ] = False,
    as_json: console.Json = False,
) -> None:
    """Do what the nightly job does: name every customer who is billed otherwise than they owe.

    Reads one snapshot and changes no invoice. Exits with 1 when anything differs. With --reopen the
    next billing run looks at all periods of these customers again: look with `convergio preview`
    first.
    """
    with opened() as product:
        found = jobs.recompute(product.database, now=product.clock.now(), reopen=reopen)
    value = {
        "ok": not found.customers,
        "customers": [typeid("cus", one) for one in found.customers],
        "differences": [str(one) for one in found.differences],
        "reopened": len(found.customers) if reopen else 0,
    }
    rows = [str(one) for one in found.differences] or ["everything is billed as it is owed"]
    if reopen and found.customers:
        rows.append(f"{len(found.customers)} customers are opened again for the next run")
    console.emit(value, as_json=as_json, text="\n".join(rows))
    if found.customers:
        raise typer.Exit(1)
