"""`convergio collect`: ask after what had no answer, then collect what is due."""

from dataclasses import asdict
from typing import Final

from convergio.cli import console
from convergio.cli.opening import opened
from convergio.payments import actions
from convergio.payments.model import CollectReport

EXAMPLE: Final = "convergio collect --json"
_SHOWN_MAX: Final = 20

app = console.command_app("Collect open invoices through the gateway.", EXAMPLE)


@app.command()
def command(as_json: console.Json = False) -> None:
    """Ask the gateway about what had no answer, then try every invoice whose time has come.

    Safe to stop and to run again: an invoice is charged once, and a charge without an answer is
    asked about, never made again blind.
    """
    with opened() as product, console.progress("Collecting invoices", None) as advance:
        clock = product.clock
        reconciled = actions.reconcile(product.database, product.gateways, now=clock.now())
        collected = actions.collect_due(
            product.database, product.gateways, clock=clock, progress=lambda _: advance(1)
        )
    value = {"reconcile": asdict(reconciled), "collect": asdict(collected)}
    text = "\n".join([*_text("asked again", reconciled), *_text("collected", collected)])
    console.emit(value, as_json=as_json, text=text)


def _text(title: str, report: CollectReport) -> list[str]:
    """Return a report as a person reads it."""
    sums = (f"{amount} {currency}" for currency, amount in report.collected.items())
    counts = {
        "declined": report.declined,
        "waiting for the customer": report.requires_action,
        "without an answer": report.unknown,
        "without a payment method": report.waiting_for_method,
        "given up": report.exhausted,
    }
    rest = "".join(f", {count} {name}" for name, count in counts.items() if count)
    rows = [f"{title}: {report.succeeded} paid ({', '.join(sums) or 'nothing'}){rest}"]
    rows += [f"problem: {one}" for one in report.problems[:_SHOWN_MAX]]
    if len(report.problems) > _SHOWN_MAX:
        rows.append(f"... and {len(report.problems) - _SHOWN_MAX} problems more: see --json")
    return rows
