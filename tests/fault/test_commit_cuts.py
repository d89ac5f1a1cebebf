"""The proxy really cuts on both sides of COMMIT, and lost answers are asked for again.

What is left afterwards is judged by `test_kills`, as after any other disaster.
"""

from collections.abc import Callable

import pytest

from tests.fault.cutter import KINDS, SIDES
from tests.fault.storm import KILLS, Outcome

pytestmark = pytest.mark.timeout(1500)


def test_a_lost_answer_to_a_commit_leads_to_a_duplicate(after: Callable[[str], Outcome]) -> None:
    figures = after("commit").journal.figures
    assert all(figures[f"cuts {side}"] >= KILLS for side in SIDES)
    assert all(figures[f"cuts {name}"] > 0 for name in KINDS), "each kind of work was hit"
    assert figures["duplicates of retries"] > 0
