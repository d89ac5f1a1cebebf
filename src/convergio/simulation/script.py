"""A simulated world as data: what happens, to whom, when. A seed draws one; a text keeps it.

A script says everything that the world decides, so the same script lives the same life, and a
shorter one is a smaller world: what `simulate` prints when product and oracle differ.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from convergio.kernel.errors import Invalid
from convergio.kernel.periods import instant_text, parse_instant

NOBODY: Final = "-"
_WORDS_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens. `who` is a customer's key, or nobody's for the business itself."""

    at: datetime
    who: str
    verb: str
    words: Mapping[str, str]

    def text(self) -> str:
        """Return a line such as `2025-01-05T10:00:00Z c3 change plan=pro when=now`."""
        said = " ".join(f"{name}={value}" for name, value in self.words.items())
        return f"{instant_text(self.at)} {self.who} {self.verb} {said}".rstrip()


@dataclass(frozen=True, slots=True)
class Script:
    """A world: its catalog, as the file would have it, and its steps in order."""

    catalog: Mapping[str, Any]
    steps: tuple[Step, ...]

    @property
    def customers(self) -> list[str]:
        """Whoever does anything, in order of their first step."""
        return list(dict.fromkeys(step.who for step in self.steps if step.who != NOBODY))

    def only(self, steps: Iterable[Step]) -> "Script":
        """Return the same world with fewer steps."""
        return Script(self.catalog, tuple(steps))


def text_of(steps: Sequence[Step]) -> str:
    """Return steps as lines for a person, which `steps_of` reads again."""
    return "\n".join(step.text() for step in steps)


def steps_of(text: str) -> tuple[Step, ...]:
    """Read lines that `text_of` wrote; empty ones and those that begin with # are left out.

    Raises: Invalid naming the line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        pairs = [part.partition("=") for part in parts[_WORDS_MIN:]]
        if len(parts) < _WORDS_MIN or not all(sign for _, sign, _ in pairs):
            detail = f"line {number} is no step; write: instant, who, verb, name=value ..."
            raise Invalid(detail, code="bad_script", field="script")
        at = parse_instant(parts[0], field=f"script line {number}")
        words = {name: value for name, _, value in pairs}
        found.append(Step(at, parts[1], parts[2], words))
    return tuple(found)
