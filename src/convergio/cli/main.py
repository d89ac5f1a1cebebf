"""`convergio`: find the command, load its module, and turn errors into one line.

Only the named command's module is imported, so `convergio --help` is quick. A rejected request
exits with 2, an unavailable part with 3, a bug with 70 and a line that says what to report.
"""

import os
import sys
import tempfile
import traceback
from typing import Any, Final

import typer
from typer.core import TyperGroup

from convergio.cli.loading import load
from convergio.kernel.errors import ConvergioError, Fault, Rejected

COMMANDS: Final = {
    "demo": "Live three months of a small AI business and show the books.",
    "serve": "Serve the HTTP API.",
    "worker": "Run the scheduled work: billing, collection, expiry.",
    "migrate": "Bring the database to the newest schema.",
    "catalog": "Show, plan and apply meters, plans and prices from a file.",
    "customer": "Create, change, show and list customers.",
    "subscribe": "Put a customer on a plan.",
    "subscription": "Show a customer's subscription and change it.",
    "apikey": "Create, list and revoke API keys.",
    "keys": "Change the key-encryption key.",
    "replay": "Feed a usage trace (CSV, TSV, JSONL) through the real ingest path.",
    "usage": "Show metered usage.",
    "quota": "Show quotas, set spend caps, give up lost leases.",
    "grant": "Grant prepaid credit, list what is left, void the rest.",
    "bill": "Invoice what is owed and not yet billed.",
    "recompute": "Compare owed and billed of everything, closed periods too.",
    "coupon": "Offer and redeem coupons.",
    "tax": "Say what is taxed, where and at which rate.",
    "preview": "Show what would be billed, without billing it.",
    "explain": "Explain a line of an invoice.",
    "invoice": "List invoices, write their PDF and XML, credit and void them.",
    "payment": "Enter bank transfers, and agree on how a customer pays.",
    "documents": "Write the documents of a month as PDF and XML.",
    "collect": "Collect open invoices through the gateway.",
    "rate": "Rate one charge offline.",
    "periods": "Show the billing periods that follow from an anchor, offline.",
    "verify": "Recompute everything and name the first difference.",
    "whatif": "Rate the real history again under another catalog.",
    "simulate": "Live seeded worlds and compare every invoice with an oracle.",
    "bench": "Measure speed as ratios in one run.",
    "doctor": "Check this machine, the settings and the database.",
}
EXIT_REJECTED: Final = 2
EXIT_UNAVAILABLE: Final = 3
EXIT_FAULT: Final = 70


class Lazy(TyperGroup):
    """A group that knows every command's name and help line, and loads one on demand."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - typer's own context
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - typer's
        """Load the named command's module; None when there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        module = load(f"cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        command.epilog = command.epilog or module.app.info.epilog
        about = module.app.info.help
        if about and command.help and about != command.help:  # typer drops it for a lone command
            command.help = f"{about}\n\n{command.help}"
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - as above
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=Lazy,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Usage metering, quotas, subscription billing and payments on one Postgres.",
    epilog="Start with: convergio demo",
)


@app.callback()
def root() -> None:
    """Hold the commands together."""


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ConvergioError as error:
        _tell(str(error), error.code)
        sys.exit(_status(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_REJECTED)
    except KeyboardInterrupt:
        _tell(
            "stopped; what was committed stays, and the same command goes on from there", "stopped"
        )
        sys.exit(130)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _tell(f"{name}{error.strerror or error}", "system")
        sys.exit(EXIT_REJECTED)
    except Exception as error:  # noqa: BLE001 - a person gets one line, the trace goes to a file
        _tell(f"a bug ({type(error).__name__}); please report {_kept()}", "fault")
        sys.exit(EXIT_FAULT)


def _kept() -> str:
    """Write the present traceback to a file that only its owner can read; return its name."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="convergio-fault-", suffix=".txt", delete=False
    ) as file:
        traceback.print_exc(file=file)
        return file.name


def _status(error: ConvergioError) -> int:
    if isinstance(error, Rejected):
        return EXIT_REJECTED
    return EXIT_FAULT if isinstance(error, Fault) else EXIT_UNAVAILABLE


def _tell(line: str, code: str) -> None:
    print(f"convergio: {' '.join(line.split())} [{code}]", file=sys.stderr)


if __name__ == "__main__":
    main()
