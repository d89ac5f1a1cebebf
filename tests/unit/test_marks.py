"""Alerts that a process has told are dropped from its cache, and no other one with them."""

from uuid import UUID

from convergio.metering import totals
from convergio.metering.intake import Customer, Window


def test_two_threads_that_told_the_same_alert_drop_it_once() -> None:
    window = Window(Customer(UUID(int=1)), 1, 0, 10, 1, marks=((50, 5), (80, 8), (100, 10)))
    for _ in range(2):  # both saw the mark before either had dropped it
        totals.drop_marks([(window, frozenset({50}))])
    assert list(window.marks) == [(80, 8), (100, 10)]
    totals.drop_marks([(window, frozenset({80, 100})), (window, frozenset({50}))])
    assert not window.marks
