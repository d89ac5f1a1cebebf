"""What the bench says: figures, ratios between them, and what each must reach (DESIGN 7).

Absolute numbers belong to a machine; a ratio of two works in one run belongs to the product. Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

_THOUSAND: Final = 1_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `ratio` compares with the work named in `of`.

    `ratio_min`, `value_min` and `value_max` are what it must reach; without one it only informs.
    `aim` is what we would like, in words (DESIGN 7).
    """

    key: str
    work: str
    value: float
    unit: str
    ratio: float | None = None
    of: str = ""
    ratio_min: float | None = None
    value_min: float | None = None
    value_max: float | None = None
    aim: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether it is as good as it must be; None when nothing is asked of it."""
        tests = [
            self.ratio_min is None or (self.ratio is not None and self.ratio >= self.ratio_min),
            self.value_min is None or self.value >= self.value_min,
            self.value_max is None or self.value <= self.value_max,
        ]
        asked = (self.ratio_min, self.value_min, self.value_max) != (None, None, None)
        return all(tests) if asked else None

    @property
    def must(self) -> str:
        """What it must reach, as text."""
        parts = []
        if self.ratio_min is not None:
            parts.append(f"ratio >= {self.ratio_min:g}")
        if self.value_min is not None:
            parts.append(f">= {number(self.value_min)}")
        if self.value_max is not None:
            parts.append(f"<= {number(self.value_max)}")
        return " and ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the line as JSON shows it."""
        return {
            "key": self.key,
            "work": self.work,
            "value": rounded(self.value),
            "unit": self.unit,
            "ratio": None if self.ratio is None else rounded(self.ratio),
            "of": self.of,
            "must": self.must,
            "aim": self.aim,
            "reached": self.reached,
        }


HEADINGS: Final = ("work", "figure", "unit", "ratio", "of", "must reach", "aim", "")
_RIGHT: Final = frozenset({"figure", "ratio"})


def cells(figure: Figure) -> tuple[str, ...]:
    """Return a line of the table as text."""
    verdict = {None: "", True: "ok", False: "MISSED"}[figure.reached]
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    if figure.ratio is not None and figure.ratio >= 10:  # noqa: PLR2004 - two digits say enough
        ratio = f"{figure.ratio:.0f}"
    return (
        figure.work, number(figure.value), figure.unit, ratio, figure.of, figure.must, figure.aim,
        verdict,
    )  # fmt: skip


def table(figures: Sequence[Figure]) -> str:
    """Return the table as lines; numbers stand to the right."""
    rows = [HEADINGS, *map(cells, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        parts = [
            cell.rjust(width) if heading in _RIGHT else cell.ljust(width)
            for cell, width, heading in zip(row, widths, HEADINGS, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a number with three digits that mean something, and thousands apart."""
    return f"{rounded(value):,.0f}" if abs(value) >= _THOUSAND else f"{rounded(value):g}"


def rounded(value: float) -> float:
    """Return a value to three significant digits; measured noise begins earlier than that."""
    if not value:
        return 0.0
    return round(value, 2 - math.floor(math.log10(abs(value))))


def middle(values: Sequence[float]) -> float:
    """Return the median of repetitions."""
    return float(median(values))


def percentile(ordered: Sequence[float], part: float) -> float:
    """Return the nearest-rank percentile of values in ascending order; 0.0 of none."""
    if not ordered:
        return 0.0
    place = math.ceil(part * len(ordered))
    return ordered[min(max(place, 1), len(ordered)) - 1]
