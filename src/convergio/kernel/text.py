"""Text from outside is checked once, before it can reach Postgres, a page or a log line.

Postgres refuses NUL and lone surrogates with an error of its own; other control characters forge
log lines, and bidirectional overrides make a name read as another one. All are refused by name
of the field, and nothing is silently repaired.
"""

import re
from typing import Final

from convergio.kernel.errors import Invalid

SIZE_MAX: Final = 200
_BIDIRECTIONAL: Final = "\u202a-\u202e\u2066-\u2069"
_CONTROL: Final = "\x00-\x1f\x7f-\x9f\u2028\u2029"
_SURROGATE: Final = "\ud800-\udfff"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_REFUSED: Final = re.compile(f"[{_CONTROL}{_SURROGATE}{_BIDIRECTIONAL}]")


def clean(text: str, *, size_max: int = SIZE_MAX, lines: bool = False) -> bool:
    """Say whether text is of 1 to `size_max` characters, unpadded and free of control characters.

    `lines` admits line feeds, for a postal address.
    """
    if not 1 <= len(text) <= size_max or text != text.strip():
        return False
    return _REFUSED.search(text.replace("\n", " ") if lines else text) is None


def check_text(text: str, *, field: str, size_max: int = SIZE_MAX, lines: bool = False) -> str:
    """Return the text unchanged. Raises: Invalid naming the field, and never showing its value."""
    if not clean(text, size_max=size_max, lines=lines):
        detail = (
            f"write 1 to {size_max} characters, without control characters"
            " and without spaces at the ends"
        )
        raise Invalid(detail, code="bad_text", field=field)
    return text


def safe_cell(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: with an apostrophe in front if need be.

    Text that begins with an apostrophe gets one too, so that `bare_cell` returns what it was.
    """
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def bare_cell(cell: str) -> str:
    """Return the text of a safe cell."""
    return cell.removeprefix("'")
