"""What every command shares: open the product, print a value, show progress on standard error."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from convergio.infra.strict_yaml import SIZE_MAX_BYTES

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value as the last line.")]
HomeFile = Path
Advance = Callable[[int], None]


def command_app(help_text: str, example: str) -> typer.Typer:
    """Return the typer app of a command module, whose help ends with an example."""
    return typer.Typer(
        help=help_text,
        epilog=f"Example: {example}",
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
    )


def emit(value: object, *, as_json: bool, text: str | Table | None = None) -> None:
    """Print a value: as one line of JSON, or as the text or table for a person."""
    if as_json:
        print(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))
    elif isinstance(text, Table):
        Console(soft_wrap=True, markup=False, highlight=False).print(text)
    else:
        print(text if text is not None else json.dumps(value, ensure_ascii=False, default=str))


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table with these headings; `right` names the ones with numbers."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left")
    return grid


def read(file: Path) -> bytes:
    """Return a YAML file's bytes, or standard input's for `-`; one more at most than is read."""
    if str(file) == "-":
        return sys.stdin.buffer.read(SIZE_MAX_BYTES + 1)
    with file.open("rb") as source:
        return source.read(SIZE_MAX_BYTES + 1)


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Advance]:
    """Show a bar on standard error while the block runs; the value moves it by so many steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    quiet = not sys.stderr.isatty() and not os.environ.get("FORCE_COLOR")
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet
    ) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.update(task, advance=steps)


def say(line: str) -> None:
    """Tell the person something on standard error."""
    print(line, file=sys.stderr)
