"""Charts as SVG, written by hand: a few panels of lines beside each other, and nothing to install.

A figure is judged by eye, so it shows little: axes with their units, a light grid from zero, points
with their values. Colours are told apart by people who do not see red and green. Pure.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

import msgspec

COLOURS: Final = ("#0b5cad", "#c2410c", "#4d7c0f", "#7e22ce")
_WIDTH: Final = 460
_HEIGHT: Final = 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 20, 44, 56
_HEAD: Final = 56
_TICKS: Final = 5
_VALUES_MAX: Final = 10  # more of them would cover the line
_VALUE_HEIGHT: Final = 13
_INK, _PALE = "#1f2937", "#d6dae0"
_STYLE: Final = (
    "text{font-family:system-ui,sans-serif;font-size:12px;fill:#1f2937}"
    ".title{font-size:17px;font-weight:600}.panel{font-size:13px;font-weight:600}"
    ".value{font-size:11px}.faint{fill:#4b5563}"
)


class Line(msgspec.Struct, frozen=True):
    """One line of a panel: its name and its points."""

    name: str
    points: tuple[tuple[float, float], ...]


class Panel(msgspec.Struct, frozen=True):
    """One pair of axes; with `steps` the x values stand evenly apart, whatever they are."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    steps: bool = True


def drawing(title: str, facts: str, panels: Sequence[Panel]) -> str:
    """Return panels side by side under a title and a line of facts, as an SVG document."""
    width, height = _WIDTH * len(panels), _HEAD + _HEIGHT
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
        f'<text class="faint" x="16" y="46">{escape(facts)}</text>',
    ]
    for place, panel in enumerate(panels):
        parts.append(f'<g transform="translate({place * _WIDTH} {_HEAD})">')
        parts += _panel(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> list[str]:
    xs = sorted({x for line in panel.lines for x, _ in line.points})
    top = _top(max((y for line in panel.lines for _, y in line.points), default=1.0))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    places = {x: _place(panel, xs, x) for x in xs}

    def height(y: float) -> float:
        return bottom - (bottom - _TOP) * y / top

    parts = [f'<text class="panel" x="{_LEFT}" y="20">{escape(panel.title)}</text>']
    for number in range(_TICKS + 1):
        y = top * number / _TICKS
        rung = f"{height(y):.1f}"
        parts.append(f'<path d="M{_LEFT} {rung}H{right}" stroke="{_PALE}" stroke-width="1"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{rung}" dy="4" text-anchor="end">{short(y)}</text>')
    for x, at in _ticks(panel, xs, places):
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{short(x)}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<path d="M{_LEFT} {bottom}H{right}" stroke="{_INK}" stroke-width="1"/>')
    parts.append(
        f'<text x="{middle}" y="{bottom + 40}" text-anchor="middle">{escape(panel.x_label)}</text>'
    )
    turned = f"translate(16 {(_TOP + bottom) / 2}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(panel.y_label)}</text>')
    written: list[tuple[float, float]] = []
    for number, line in enumerate(panel.lines):
        points = [(places[x], height(y), y) for x, y in line.points]
        parts += _line(line, number, points, named=len(panel.lines) > 1)
        if len(points) <= _VALUES_MAX:
            parts += _values(points, written)
    return parts


def _line(
    line: Line, number: int, points: Sequence[tuple[float, float, float]], *, named: bool
) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    if len(points) <= _VALUES_MAX:
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y, _ in points
        ]
    if named:
        at = _LEFT + 4 + number * 175
        parts.append(f'<path d="M{at} 32h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{at + 24}" y="36">{escape(line.name)}</text>')
    return parts


def _values(
    points: Sequence[tuple[float, float, float]], written: list[tuple[float, float]]
) -> list[str]:
    """Write the values beside their points, but never one over another."""
    parts = []
    for x, y, value in points:
        at = y - 9 if y > _TOP + 12 else y + 17
        if any(x == other and abs(at - place) < _VALUE_HEIGHT for other, place in written):
            continue
        written.append((x, at))
        where = f'x="{x:.1f}" y="{at:.1f}" text-anchor="middle"'
        parts.append(f'<text class="value" {where}>{short(value)}</text>')
    return parts


def _place(panel: Panel, xs: Sequence[float], x: float) -> float:
    """Return where an x value stands."""
    room = _WIDTH - _LEFT - _RIGHT - 40
    if panel.steps:
        return _LEFT + 20 + room * (xs.index(x) / max(len(xs) - 1, 1))
    return _LEFT + 20 + room * (x / (xs[-1] or 1))


def _ticks(
    panel: Panel, xs: Sequence[float], places: dict[float, float]
) -> list[tuple[float, float]]:
    """Return the x values that are written, and where."""
    if panel.steps:
        return [(x, places[x]) for x in xs]
    top = _top(xs[-1]) if xs else 1.0
    values = [top * number / _TICKS for number in range(_TICKS + 1)]
    return [(x, _place(panel, xs, x)) for x in values if x <= xs[-1]]


def _top(value: float) -> float:
    """Return the round number at which an axis ends: 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= value)


def short(value: float) -> str:
    """Return a number as an axis writes it: three digits that mean something, k and M."""
    for limit, word in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{_three(value / limit)}{word}"
    return _three(value)


def _three(value: float) -> str:
    if not value:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"
