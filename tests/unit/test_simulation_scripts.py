"""A script is a world as data: the same from the same seed, kept as text, made small."""

from collections.abc import Sequence

import pytest

from convergio.kernel.errors import Invalid
from convergio.simulation import drawing
from convergio.simulation.script import NOBODY, Step, steps_of, text_of
from convergio.simulation.shrinking import shrunk
from tests.fakes.business import at

SIZE = {"customers": 6, "months": 6}


def test_a_seed_always_draws_the_same_world_and_another_seed_another() -> None:
    assert drawing.drawn(5, **SIZE) == drawing.drawn(5, **SIZE)
    assert drawing.drawn(5, **SIZE).steps != drawing.drawn(6, **SIZE).steps


def test_steps_are_in_the_order_of_time_and_end_with_two_runs() -> None:
    steps = drawing.drawn(5, **SIZE).steps
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert [step.verb for step in steps[-2:]] == ["run", "run"]


def test_worlds_hold_every_verb_that_the_stage_can_play() -> None:
    verbs = {step.verb for seed in range(40) for step in drawing.drawn(seed, **SIZE).steps}
    assert verbs == {
        "use", "void", "amend", "run", "collect", "subscribe", "change", "drop", "pause", "resume",
        "reactivate", "cancel", "card", "pay", "credit", "void_invoice", "give_up",
        "add_on", "charge", "agree", "reprice", "migrate",
        "coupon", "archive", "redeem", "grant", "void_grant", "tax", "place",
    }  # fmt: skip


def test_the_worlds_of_every_test_run_hold_coupons_tax_and_credit() -> None:
    verbs = [step.verb for seed in range(1, 11) for step in drawing.drawn(seed, **SIZE).steps]
    assert all(verbs.count(verb) >= 10 for verb in ("redeem", "tax", "place", "grant"))


def test_a_script_reads_back_from_its_text() -> None:
    steps = drawing.drawn(5, **SIZE).steps
    assert steps_of(text_of(steps)) == steps


@pytest.mark.parametrize("line", ["2025-01-01T00:00:00Z c1", "2025-01-01T00:00:00Z c1 change now"])
def test_a_line_that_is_no_step_is_named(line: str) -> None:
    with pytest.raises(Invalid, match="line 2"):
        steps_of(f"# a comment\n{line}")


def test_shrinking_keeps_what_the_difference_needs_and_nothing_else() -> None:
    steps = [Step(at("2025-01-01"), f"c{n % 3}", f"v{n}", {}) for n in range(60)]
    steps.append(Step(at("2025-01-01"), NOBODY, "run", {}))
    needed = {"v7", "v31", "run"}
    tries = 0

    def fails(some: Sequence[Step]) -> bool:
        nonlocal tries
        tries += 1
        return needed <= {step.verb for step in some}

    small = shrunk(steps, "c1", fails=fails, may_go_on=lambda: True)
    assert {step.verb for step in small} == needed
    assert tries < 200


def test_shrinking_ends_when_its_time_is_over() -> None:
    steps = tuple(Step(at("2025-01-01"), "c1", f"v{n}", {}) for n in range(9))
    assert shrunk(steps, "c1", fails=lambda _: True, may_go_on=lambda: False) == steps
