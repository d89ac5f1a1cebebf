"""The bench's figures: well-formed, to scale, and with every number on the page."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from typer.testing import CliRunner

from convergio.cli import bench, bench_curves
from convergio.kernel.errors import Invalid
from convergio.simulation.bench_curves import Curve, Fact, near, page, svg
from convergio.simulation.bench_svg import Line, Panel, drawing, short

SVG = "{http://www.w3.org/2000/svg}"
CURVE = Curve(
    key="batch",
    title="Ingest <& co>",
    words="What it means.",
    panels=(
        Panel("Throughput", "events a request", "events/s", (Line("a", ((1, 50.0), (10, 100.0))),)),
    ),
    columns=("events a request", "events/s"),
    rows=((1, 50.0), (10, 12_345.0)),
    facts=(Fact("against empty", 0.91, 0.7), Fact("against naive", 12.0, 25)),
    measured_on="2026-11-23",
    machine="2 cores",
)


def points(text: str) -> list[tuple[float, float]]:
    """Return where the points of a figure are drawn."""
    found = ET.fromstring(text).iter(f"{SVG}circle")  # noqa: S314 - our own text
    return [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in found]


def test_a_figure_is_well_formed_and_says_what_it_shows_and_where() -> None:
    root = ET.fromstring(svg(CURVE))  # noqa: S314 - our own text
    told = {one.text for one in root.iter(f"{SVG}text")}
    assert {"Ingest <& co>", "events a request", "events/s", "2 cores; 2026-11-23"} <= told


def test_twice_as_much_stands_twice_as_high() -> None:
    (_, low), (_, high) = points(svg(CURVE))
    floor = 330 - 56
    assert floor - high == pytest.approx(2 * (floor - low), abs=0.2)


def test_steps_stand_evenly_apart_and_a_scale_is_one() -> None:
    line = (Line("a", ((0, 1.0), (1_000, 1.0), (10_000, 1.0))),)
    evenly = [x for x, _ in points(drawing("t", "f", [Panel("p", "x", "y", line)]))]
    scaled = [x for x, _ in points(drawing("t", "f", [Panel("p", "x", "y", line, steps=False)]))]
    assert evenly[1] - evenly[0] == pytest.approx(evenly[2] - evenly[1], abs=0.2)
    assert scaled[2] - scaled[0] == pytest.approx(10 * (scaled[1] - scaled[0]), abs=1)


def test_values_are_never_written_one_over_another() -> None:
    lines = (Line("a", ((1, 500.0), (2, 900.0))), Line("b", ((1, 501.0), (2, 100.0))))
    text = drawing("t", "f", [Panel("p", "x", "y", lines)])
    values = re.findall(r'class="value" x="([\d.]+)" y="([\d.]+)"', text)
    assert len(values) == 3
    assert len(points(text)) == 4


def test_a_figure_of_nothing_and_of_zero_draws() -> None:
    for line in (Line("a", ()), Line("a", ((1, 0.0),))):
        assert "</svg>" in drawing("t", "f", [Panel("p", "x", "y", (line,))])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.05, "0.05"), (12.34, "12.3"), (999, "999"), (1_000, "1k"), (1_250, "1.25k"),
        (250_000, "250k"), (10_000_000, "10M"), (100, "100"),
    ],
)  # fmt: skip
def test_an_axis_writes_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


def test_the_page_shows_every_number_and_every_verdict() -> None:
    told = page([CURVE, msgspec.structs.replace(CURVE, key="other", quick=True)])
    assert "| 10 | 12,300 |" in told
    assert "against empty: 0.91 (must reach 0.7: ok)" in told
    assert "against naive: 12 (must reach 25: MISSED)" in told
    assert "![Ingest <& co>](batch.svg)" in told
    assert "--quick" in told


def test_a_curve_survives_its_file() -> None:
    assert msgspec.json.decode(msgspec.json.encode([CURVE]), type=list[Curve]) == [CURVE]


def test_near_is_the_median_of_the_chunks_that_follow() -> None:
    rates = [(0, 10.0), (1, 30.0), (2, 20.0), (3, 1.0), (4, 2.0), (5, 3.0)]
    assert near(rates, 0) == 20.0
    assert near(rates, 3) == 2.0
    assert near(rates, 5) == 2.0, "where too few follow, the last ones count"


def test_a_curve_that_does_not_exist_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    found = CliRunner().invoke(bench.app, ["curves", "--only", "nonsense", "--into", str(tmp_path)])
    assert isinstance(found.exception, Invalid)
    assert "history" in found.exception.detail
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_curves_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "curves.json").write_text("{}")
    with pytest.raises(Invalid, match="remove it"):
        bench_curves.command(only=["batch"], into=tmp_path)
    assert (tmp_path / "curves.json").read_text() == "{}"
