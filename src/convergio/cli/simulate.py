"""`convergio simulate`: seeded worlds through the real code, each compared with an oracle.

The worlds live in databases of their own, made beside the configured one and dropped at the end.
A difference prints the seed, a short script that still shows it, and both answers; it exits with 1.
"""

import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from convergio.cli import console, opening
from convergio.infra import migrate, scratch
from convergio.infra.clock import stopwatch
from convergio.kernel.errors import Invalid
from convergio.simulation import drawing, seeds
from convergio.simulation.comparing import Found
from convergio.simulation.script import steps_of, text_of
from convergio.simulation.seeds import Ground, Lived, Size
from convergio.wiring import dsn

EXAMPLE: Final = "convergio simulate --seed 7; convergio simulate --seeds 1..200 --workers 2"
_RANGE: Final = re.compile(r"(\d{1,9})\.\.(\d{1,9})", re.ASCII)
_SHOWN_MAX: Final = 5

app = console.command_app("Live seeded worlds and compare every invoice with an oracle.", EXAMPLE)


@app.command()
def command(
    *,
    seed: Annotated[int, typer.Option(min=0, help="The world to live.")] = 1,
    seeds_: Annotated[
        str | None, typer.Option("--seeds", help="Several worlds: the first and the last, 1..200.")
    ] = None,
    customers: Annotated[int, typer.Option(min=1, max=1_000, help="How many a world.")] = 20,
    months: Annotated[int, typer.Option(min=1, max=60, help="How long a world.")] = 12,
    faults: Annotated[
        bool, typer.Option(help="Undo transactions, kill runs, run two at once.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes, for several.")] = 1,
    shrink: Annotated[float, typer.Option(min=0, help="Seconds to shorten a script.")] = 60.0,
    script: Annotated[
        Path | None, typer.Option(help="Live these steps with the seed's catalog instead.")
    ] = None,
    as_json: console.Json = False,
) -> None:
    """Drive worlds of sign-ups, usage, changes and payments through the real code.

    Everything follows from the seed, so a seed that differs differs again.
    """
    size, begun = Size(customers, months, faults), stopwatch()
    wanted = _wanted(seed, seeds_)
    with _ground() as ground:
        if script is not None:
            lived = [_scripted(ground, seed, size, script)]
        elif workers == 1 or len(wanted) == 1:
            lived = _in_turn(ground, wanted, size, shrink)
        else:
            lived = _in_processes(ground, wanted, size, shrink, workers)
    value = _value(lived, size, round(stopwatch() - begun, 1))
    console.emit(value, as_json=as_json, text=_text(lived, value))
    if value["differences"]:
        raise typer.Exit(1)


def _wanted(seed: int, several: str | None) -> range:
    if several is None:
        return range(seed, seed + 1)
    found = _RANGE.fullmatch(several)
    if found is None or int(found[1]) > int(found[2]):
        detail = "write the first and the last seed, such as 1..200"
        raise Invalid(detail, code="bad_range", field="seeds")
    return range(int(found[1]), int(found[2]) + 1)


@contextmanager
def _ground() -> Iterator[Ground]:
    settings = opening.settings()
    where = dsn(settings)
    with scratch.scratch(where, scratch.SIMULATE) as url:
        migrate.upgrade(url)
        yield Ground(settings, where, url, str(os.getpid()))


def _in_turn(ground: Ground, wanted: Sequence[int], size: Size, shrink: float) -> list[Lived]:
    lived = []
    one = len(wanted) == 1
    steps = len(drawing.drawn(wanted[0], customers=size.customers, months=size.months).steps)
    title, total = ("Living, step", steps) if one else ("Living, seed", len(wanted))
    with console.progress(title, total) as advance:
        for seed in wanted:
            quiet = advance if one else _ignore
            lived.append(seeds.live(ground, seed, size, shrink_seconds=shrink, progress=quiet))
            if not one:
                advance(1)
    return lived


def _ignore(_: int) -> None:
    """Say nothing of the steps within a seed."""


def _in_processes(
    ground: Ground, wanted: Sequence[int], size: Size, shrink: float, workers: int
) -> list[Lived]:
    lived = []
    context = multiprocessing.get_context("spawn")
    with (
        console.progress("Living, seed", len(wanted)) as advance,
        ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        jobs = [pool.submit(_one, ground.dsn, ground.url, seed, size, shrink) for seed in wanted]
        for job in as_completed(jobs):
            lived.append(job.result())
            advance(1)
    return sorted(lived, key=lambda one: one.seed)


def _one(where: str, url: str, seed: int, size: Size, shrink: float) -> Lived:
    """Live one seed in a worker process, which reads its settings itself."""
    ground = Ground(opening.settings(), where, url, str(os.getpid()))
    return seeds.live(ground, seed, size, shrink_seconds=shrink)


def _scripted(ground: Ground, seed: int, size: Size, script: Path) -> Lived:
    drawn = drawing.drawn(seed, customers=size.customers, months=size.months)
    steps = steps_of(script.read_text(encoding="utf-8"))
    if not steps:
        raise Invalid("the script has no step", code="bad_script", field="script")
    begun = stopwatch()
    found, tally = seeds.played(ground, drawn.only(steps), seed=seed, faults=size.faults)
    seconds = round(stopwatch() - begun, 2)
    return Lived(seed, len(steps), seconds, tuple(found), tally, steps if found else ())


def _value(lived: Sequence[Lived], size: Size, seconds: float) -> dict[str, Any]:
    tally: Counter[str] = Counter()
    for one in lived:
        tally.update(one.tally)
    return {
        "seeds": len(lived),
        "customers": size.customers,
        "months": size.months,
        "faults": size.faults,
        "seconds": seconds,
        "steps": sum(one.steps for one in lived),
        "done": dict(sorted(tally.items())),
        "differences": sum(len(one.found) for one in lived),
        "failed": [
            {
                "seed": one.seed,
                "found": [_found(each) for each in one.found],
                "script": [step.text() for step in one.script],
            }
            for one in lived
            if one.found
        ],
    }


def _found(one: Found) -> dict[str, str]:
    difference = one.difference
    return {
        "who": one.who,
        "where": difference.where,
        "expected": difference.expected,
        "found": difference.found,
    }


def _text(lived: Sequence[Lived], value: dict[str, Any]) -> str:
    done = value["done"]
    size = f"{value['seeds']} seeds x {value['customers']} customers x {value['months']} months"
    made = f"{done.get('invoices', 0):,} invoices, {done.get('credit notes', 0):,} credit notes"
    done_in = f"{size} in {value['seconds']} s: {value['steps']:,} steps"
    lines = [f"{done_in}, {made}, {value['differences']} differences"]
    for one in [one for one in lived if one.found][:_SHOWN_MAX]:
        lines += ["", f"seed {one.seed}:"]
        for each in one.found[:_SHOWN_MAX]:
            lines += [f"  {each.who}, {each.difference.where}"]
            lines += [f"    oracle  {each.difference.expected}"]
            lines += [f"    product {each.difference.found}"]
        lines += [f"  # a script that shows it: convergio simulate --seed {one.seed} --script FILE"]
        lines += [text_of(one.script)]
    return "\n".join(lines)
