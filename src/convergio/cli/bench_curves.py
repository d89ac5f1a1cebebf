"""`convergio bench curves`: measure how speed changes as things grow, and draw it.

The numbers are kept in `curves.json` beside the figures, after each curve: a run that was
interrupted goes on with `--missing`, and `--only` measures one curve again.
"""

import os
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from convergio.cli import bench_stage, console
from convergio.cli.bench_shapes import CURVES, FULL, QUICK
from convergio.infra.clock import stopwatch
from convergio.kernel.errors import Invalid
from convergio.simulation import bench_curves
from convergio.simulation.bench_curves import Curve

FOLDER: Final = Path("docs/benchmarks")
_DATA: Final = "curves.json"


def command(
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Measure only these: {', '.join(CURVES)}. May be repeated."),
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Measure only what is not measured yet.")
    ] = False,
    into: Annotated[Path, typer.Option(help="The folder of the figures.")] = FOLDER,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to see it work.")] = False,
    as_json: console.Json = False,
) -> None:
    """Draw throughput and delay against batch size, connections, history and subscriptions.

    Writes an SVG a curve, README.md and curves.json into the folder; about a quarter of an hour on
    a quiet machine. Example: convergio bench curves --only history --only naive
    """
    unknown = set(only or ()) - CURVES.keys()
    if unknown:
        detail = f"there is no curve '{min(unknown)}'; there are {', '.join(CURVES)}"
        raise Invalid(detail, code="unknown_curve", field="--only")
    into.mkdir(parents=True, exist_ok=True)
    kept = _kept(into)
    for key in CURVES:
        if (only and key not in only) or (missing and key in kept):
            continue
        kept[key] = _measured(key, quick=quick)
        _write(into, kept)
    _write(into, kept)
    facts = [fact.text for curve in kept.values() for fact in curve.facts]
    value = {"folder": str(into), "curves": list(kept), "facts": facts}
    console.emit(value, as_json=as_json, text="\n".join([f"drawn in {into}", *facts]))


def _measured(key: str, *, quick: bool) -> Curve:
    """Measure one curve on a database of its own."""
    console.say(f"bench: {key} (load average {os.getloadavg()[0]:.2f})")
    begin = stopwatch()
    with bench_stage.product() as app:
        found = CURVES[key](app, QUICK if quick else FULL)
        if key != "billing":
            bench_stage.check(app)
        machine, today = bench_stage.machine(app), app.clock.now().date().isoformat()
    seconds = stopwatch() - begin
    console.say(f"bench: {key} took {seconds:.0f} s")
    return msgspec.structs.replace(
        found, machine=machine, measured_on=today, seconds=seconds, quick=quick
    )


def _kept(into: Path) -> dict[str, Curve]:
    """Return what was measured before. Raises: Invalid when the file does not read."""
    file = into / _DATA
    if not file.exists():
        return {}
    try:
        found = msgspec.json.decode(file.read_bytes(), type=list[Curve])
    except msgspec.DecodeError as error:
        detail = f"{file} does not read as curves ({error}); remove it to measure anew"
        raise Invalid(detail, code="bad_curves", field="--into") from None
    return {curve.key: curve for curve in found}


def _write(into: Path, kept: dict[str, Curve]) -> None:
    """Write the data, a figure each, and the page."""
    curves = [kept[key] for key in CURVES if key in kept]
    data = msgspec.json.format(msgspec.json.encode(curves), indent=1)
    (into / _DATA).write_bytes(data + b"\n")
    for curve in curves:
        if curve.panels:
            (into / f"{curve.key}.svg").write_text(bench_curves.svg(curve), encoding="utf-8")
    (into / "README.md").write_text(bench_curves.page(curves), encoding="utf-8")
