"""`convergio usage export | import | retain`: months of events as files, and old months let go."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from convergio.billing import actions as billing
from convergio.cli import console
from convergio.cli.opening import opened
from convergio.infra.clock import stopwatch
from convergio.infra.settings import KEEP_MONTHS_MIN
from convergio.kernel.errors import ConvergioError
from convergio.kernel.periods import instant_text
from convergio.metering import archive, retention
from convergio.metering.archive import Tally
from convergio.metering.model import EPOCH

EXPORT: Final = "convergio usage export --month 2024-11 --format parquet --out archive --json"
IMPORT: Final = "convergio usage import archive/usage-2024-11.parquet --json"
RETAIN: Final = "convergio usage retain --older-than-months 18 --out archive --json"
TOLD_MAX: Final = 10
Out = Annotated[Path, typer.Option(help="Folder of the files; made if it is not there.")]
Form = Annotated[str, typer.Option("--format", help="parquet, csv or csv.gz.")]


def export(
    month: Annotated[str, typer.Option(help="The month in UTC, such as 2024-11.")],
    form: Form = "csv",
    out: Out = Path(),
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Write over an older export.")] = False,
    as_json: console.Json = False,
) -> None:
    """Write every event of a month to a file, and a manifest beside it."""
    period = archive.month(month)
    with opened() as product:
        with product.database.transaction() as tx:
            total = archive.size(tx, period)
        began = stopwatch()
        with console.progress("Exporting", total) as advance:
            done = archive.export(
                product.database,
                period,
                folder=out,
                form=form,
                now=product.clock.now(),
                is_replacing=replace,
                progress=advance,
            )
    value = {"path": str(done.path)} | msgspec.to_builtins(done.manifest)
    value |= {"seconds": round(stopwatch() - began, 3)}
    text = f"{done.path}: {done.manifest.rows:,} events, {done.manifest.bytes:,} bytes"
    console.emit(value, as_json=as_json, text=text)


def bring_in(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of an export.")],
    *,
    as_json: console.Json = False,
) -> None:
    """Count the events of exported months; an event that was counted before is a duplicate.

    All files are checked before the first event is counted.
    """
    tally, began = Tally(), stopwatch()
    with opened() as product:
        with console.progress("Checking", None) as advance:
            checked = [archive.check(product.database, path, progress=advance) for path in files]
        total = sum(one.manifest.rows for one in checked)
        try:
            with console.progress("Importing", total) as advance:
                for one in checked:
                    archive.bring_in(
                        product.ingestor,
                        one,
                        now=product.clock.now(),
                        tally=tally,
                        progress=advance,
                    )
        except (ConvergioError, OSError, KeyboardInterrupt):
            console.say(_stopped(tally))
            raise
    for reason, count in tally.reasons.most_common(TOLD_MAX):
        console.say(f"{count} events did not count: {reason}")
    value = {
        "files": len(checked),
        "rows": total,
        "accepted": tally.accepted,
        "duplicate": tally.duplicate,
        "refused": tally.refused,
        "seconds": round(stopwatch() - began, 3),
    }
    text = (
        f"{total:,} events: {tally.accepted:,} accepted, {tally.duplicate:,} duplicate, "
        f"{tally.refused:,} refused"
    )
    console.emit(value, as_json=as_json, text=text)
    if tally.refused:
        raise typer.Exit(1)


def retain(
    older_than_months: Annotated[
        int, typer.Option(help=f"How old a month is to go; at least {KEEP_MONTHS_MIN}.")
    ] = KEEP_MONTHS_MIN,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the archives. [CONVERGIO_HOME/archive]")
    ] = None,
    form: Form = "csv.gz",
    *,
    as_json: console.Json = False,
) -> None:
    """Archive old months, verify the archives, then delete their events; totals stay.

    From then on nothing older is accepted. Safe to stop and run again.
    """
    with opened() as product:
        with product.database.transaction() as tx:
            billed_until = billing.billed_until(tx)
        with console.progress("Retaining", None) as advance:
            done = retention.retain(
                product.database,
                older_than_months=older_than_months,
                billed_until=billed_until,
                folder=out or product.settings.archive_path,
                form=form,
                now=product.clock.now(),
                progress=advance,
            )
        with product.database.transaction() as tx:
            boundary = retention.boundary(tx).accepts_from
    accepts_from = instant_text(boundary) if boundary > EPOCH else None
    value = {"months": [asdict(one) for one in done], "accepts_from": accepts_from}
    rows = console.table("month", "file", "rows", "deleted", right=("rows", "deleted"))
    for one in done:
        rows.add_row(one.month, one.file, str(one.rows), str(one.deleted))
    console.emit(value, as_json=as_json, text=rows if done else "no month is old enough to go")


def _stopped(tally: Tally) -> str:
    if not tally.accepted + tally.duplicate + tally.refused:
        return "stopped: nothing was counted"
    return (
        f"stopped: {tally.accepted} events were counted and stay ({tally.duplicate} were there "
        f"before, {tally.refused} were refused); run the same command, which goes on from there"
    )
