"""Seeded worlds through the real code: every document and balance is as the oracle says."""

from pathlib import Path

import pytest

from convergio.infra import postgres
from convergio.simulation import drawing, seeds
from convergio.simulation.script import steps_of
from convergio.simulation.seeds import Ground, Size
from tests.fakes.worlds import ground

SMALL = Size(customers=6, months=6)


@pytest.fixture
def here(server: postgres.Embedded, template: str, tmp_path: Path) -> Ground:
    return ground(server, template, tmp_path)


@pytest.mark.parametrize("seed", range(1, 11))
def test_product_and_oracle_agree_on_every_document_of_a_seed(here: Ground, seed: int) -> None:
    lived = seeds.live(here, seed, SMALL)
    assert [str(one) for one in lived.found] == []
    assert lived.tally["invoices"] > 0


@pytest.mark.parametrize("seed", [101, 102])
def test_faults_change_no_amount(here: Ground, seed: int) -> None:
    lived = seeds.live(here, seed, Size(customers=6, months=5, faults=True))
    assert [str(one) for one in lived.found] == []


# What worlds have found, as the script that showed it. The comment says what was wrong.
FOUND = {
    # A change that no run had carried out was lost when its customer canceled: the dearer plan
    # was billed for the time after it.
    "canceled before the run": """
        2025-02-05T00:00:00Z c1 subscribe plan=pro
        2025-02-10T23:17:49Z c1 change plan=packs when=period_end
        2025-03-12T04:24:05Z c1 cancel at=now credit=yes
        2025-03-20T00:00:00Z - run
    """,
    # A trial that nobody had looked at yet went on as paid when its customer, who had no payment
    # method and should have fallen to Free, changed the plan.
    "changed before the trial was decided": """
        2025-02-20T18:44:02Z c1 subscribe plan=packs trial=30 without=fall_back fallback=free
        2025-03-27T03:44:22Z c1 change plan=pro when=now
        2025-04-01T00:00:00Z - run
    """,
    # A year that nothing was charged for any more decided when the paid time ends.
    "from yearly to monthly": """
        2025-01-15T00:00:00Z c1 subscribe plan=yearly
        2025-03-01T00:00:00Z c1 change plan=metered when=now
        2025-03-20T00:00:00Z c1 cancel at=period_end
        2025-06-20T00:00:00Z - run
    """,
    # Going on after a pause at the very instant of a change opened new periods.
    "paused at the instant of a change": """
        2025-01-15T00:00:00Z c1 subscribe plan=packs
        2025-01-20T00:00:00Z c1 change plan=pro when=period_end
        2025-02-15T00:00:00Z c1 pause
        2025-02-20T00:00:00Z c1 resume
        2025-03-20T00:00:00Z - run
    """,
    # A week and a month of one meter that begin together were taken for one period, and the
    # customer was parked.
    "from weekly to monthly at once": """
        2024-06-06T14:55:49Z c1 subscribe plan=weekly zone=Asia/Kolkata
        2024-06-11T02:41:41Z c1 change plan=free when=period_end
        2024-07-06T17:16:09Z - run
    """,
    # A correction of usage was called after the change that ended the stretch, and its credit
    # note after a line of another one.
    "a void after an upgrade": """
        2025-01-15T00:00:00Z c1 subscribe plan=basic
        2025-01-16T00:00:00Z c1 use id=c1-1 time=2025-01-16T00:00:00+00:00 quantity=900
        2025-01-20T00:00:00Z c1 change plan=pro when=now
        2025-02-20T00:00:00Z - run
        2025-02-21T00:00:00Z c1 void id=c1-1 fix=c1-2
        2025-02-22T00:00:00Z c1 cancel at=now credit=yes
        2025-02-23T00:00:00Z - run
    """,
}


@pytest.mark.parametrize("name", FOUND)
def test_what_worlds_have_found_stays_mended(here: Ground, name: str) -> None:
    script = drawing.drawn(7, customers=1, months=1).only(steps_of(FOUND[name]))
    found, tally = seeds.played(here, script)
    assert [str(one) for one in found] == []
    assert not [told for told in tally if "refused" in told]
