"""The bench's own arithmetic: percentiles, rounding, verdicts, and the table's text."""

import pytest

from convergio.simulation.bench_figures import (
    HEADINGS,
    Figure,
    cells,
    middle,
    number,
    percentile,
    rounded,
    table,
)


@pytest.mark.parametrize(
    ("part", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0), (0.001, 1.0)]
)
def test_a_percentile_is_a_value_that_was_measured(part: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], part) == expected


def test_a_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.99) == 0.0


def test_the_p99_of_few_values_is_the_worst_of_them() -> None:
    assert percentile([1.0, 2.0, 9.0], 0.99) == 9.0


def test_one_bad_repetition_does_not_move_the_figure() -> None:
    assert middle([100.0, 102.0, 3.0, 101.0, 99.0]) == 100.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.123456, "0.123"), (9.996, "10"), (12.34, "12.3"), (987_654.0, "988,000")],
)
def test_three_digits_say_what_was_measured(value: float, text: str) -> None:
    assert number(value) == text


def test_rounding_keeps_the_sign_and_the_size() -> None:
    assert rounded(-123_456.0) == -123_000.0


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (Figure("a", "work", 1.0, "x/s"), None),
        (Figure("a", "work", 1.0, "x/s", ratio=0.25, of="b", ratio_min=0.25), True),
        (Figure("a", "work", 1.0, "x/s", ratio=0.2499, of="b", ratio_min=0.25), False),
        (Figure("a", "work", 26.0, "ms", value_max=25), False),
        (Figure("a", "work", 25.0, "ms", value_max=25), True),
        (Figure("a", "work", 4_999.0, "x/s", value_min=5_000), False),
        (Figure("a", "work", 1.0, "x/s", ratio_min=0.25), False),
    ],
)
def test_a_figure_says_whether_it_is_good_enough(figure: Figure, reached: bool | None) -> None:
    assert figure.reached is reached
    assert figure.as_json()["reached"] is reached


def test_a_line_of_the_table_shows_ratio_demand_and_verdict() -> None:
    figure = Figure(
        "a", "ingest", 81_234.0, "events/s", ratio=0.312, of="COPY", ratio_min=0.25, aim="0.5"
    )
    assert cells(figure) == (
        "ingest", "81,200", "events/s", "0.31", "COPY", "ratio >= 0.25", "0.5", "ok",
    )  # fmt: skip
    assert len(cells(figure)) == len(HEADINGS)


def test_a_missed_figure_is_seen_at_once() -> None:
    figure = Figure("a", "p99", 30.0, "ms", ratio=31.7, of="naive", value_max=25)
    assert cells(figure)[3:] == ("32", "naive", "<= 25", "", "MISSED")


def test_the_table_has_a_line_a_figure_and_numbers_stand_to_the_right() -> None:
    figures = [Figure("a", "short", 5.0, "x/s"), Figure("b", "much longer", 12_345.0, "x/s")]
    heading, first, second = table(figures).splitlines()
    assert heading.startswith("work         figure  unit")
    assert first == "short             5  x/s"
    assert second == "much longer  12,300  x/s"
