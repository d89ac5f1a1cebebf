"""What a curve of the bench is, and how it becomes a figure and a page.

A curve is measured, kept as data, and drawn from the data: drawing again costs nothing, and a run
that was interrupted goes on with the curves that are missing. Pure.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

from convergio.simulation.bench_figures import number
from convergio.simulation.bench_svg import Panel, drawing

COMMAND: Final = "convergio bench curves"
_HEAD: Final = """# How fast, drawn

These figures are measured by

```sh
{command}
```

on a machine of {facts}. Absolute numbers belong to that machine; the shapes and the ratios belong
to the product. Load comes from a process of its own over raw sockets: a closed loop finds the most
that is answered, an open loop at half of that rate finds the delay (a request's delay counts from
when it was due). `--only history` measures one curve again and leaves the others; the numbers
behind every figure are in `curves.json`. The table of `make bench` holds the budgets.
"""
_QUICK: Final = "**Measured with `--quick`: small, and noisy.**"


class Fact(msgspec.Struct, frozen=True):
    """What a curve must show: a ratio within the run, and what it must reach (None: informs)."""

    what: str
    value: float
    least: float | None = None

    @property
    def text(self) -> str:
        """The fact as a sentence."""
        if self.least is None:
            return f"{self.what}: {number(self.value)}"
        verdict = "ok" if self.value >= self.least else "MISSED"
        return f"{self.what}: {number(self.value)} (must reach {self.least:g}: {verdict})"


class Curve(msgspec.Struct, frozen=True):
    """A measured curve: panels to draw, a table of the same numbers, and what they mean."""

    key: str
    title: str
    words: str
    panels: tuple[Panel, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]
    facts: tuple[Fact, ...] = ()
    measured_on: str = ""
    machine: str = ""
    seconds: float = 0.0
    quick: bool = False


def svg(curve: Curve) -> str:
    """Return the figure of a curve."""
    quick = ", --quick" if curve.quick else ""
    return drawing(curve.title, f"{curve.machine}; {curve.measured_on}{quick}", curve.panels)


def page(curves: Sequence[Curve]) -> str:
    """Return the page that shows the curves, in their order."""
    facts = curves[-1].machine if curves else "none"
    quick = any(curve.quick for curve in curves)
    parts = [_HEAD.format(command=f"{COMMAND} --quick" if quick else COMMAND, facts=facts)]
    for curve in curves:
        parts.append(f"## {curve.title}\n\n{curve.words}\n")
        if curve.quick:
            parts.append(f"{_QUICK}\n")
        if curve.panels:
            parts.append(f"![{curve.title}]({curve.key}.svg)\n")
        parts.append(_table(curve))
        parts += [f"- {fact.text}" for fact in curve.facts]
        end = f"Measured on {curve.measured_on} in {curve.seconds:.0f} s."
        parts.append(f"\n{end}\n" if curve.facts else f"{end}\n")
    return "\n".join(parts)


def _table(curve: Curve) -> str:
    head = f"| {' | '.join(curve.columns)} |"
    rule = f"|{'---:|' * len(curve.columns)}"
    rows = [
        f"| {' | '.join('' if cell is None else number(cell) for cell in row)} |"
        for row in curve.rows
    ]
    return "\n".join([head, rule, *rows, ""])


def near(rates: Sequence[tuple[int, float]], history: int, count: int = 3) -> float:
    """Return the median of the `count` rates that were measured from a history on.

    `rates` are pairs of the history before a measurement and the rate, in order.
    """
    later = [rate for before, rate in rates if before >= history]
    found = later[:count] if len(later) >= count else [rate for _, rate in rates[-count:]]
    return float(median(found))
