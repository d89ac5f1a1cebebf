"""Fault tests share two storms a session, and print what they did: seed, kills, events, retries."""

from collections.abc import Callable

import pytest

from tests.fault import stage, storm

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run."""
    return stage.seed()


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest, seed: int) -> list[str]:
    """Lines for the end of the run."""
    return request.config.stash.setdefault(FIGURES, [f"FAULT_SEED={seed}"])


@pytest.fixture(scope="session")
def after(seed: int, figures: list[str]) -> Callable[[str], storm.Outcome]:
    """What is left after a storm of one kind: it rages once, every test judges the same one."""
    past: dict[str, storm.Outcome] = {}

    def outcome(kind: str) -> storm.Outcome:
        if kind not in past:
            with stage.built() as built:
                past[kind] = storm.rage(built, kind, seed)
            found = past[kind].journal.figures
            told = ", ".join(f"{found[name]:,} {name}" for name in sorted(found))
            figures.append(f"{kind}: {told}; {past[kind].facts.stored.total():,} events stored")
        return past[kind]

    return outcome


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the figures, also when everything passed."""
    lines = config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.write_line(line)
