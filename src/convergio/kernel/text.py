"""Text from outside is checked once, before it can reach Postgres, a page or a log line.

Postgres refuses NUL and lone surrogates with an error of its own; other control characters forge
log lines, and bidirectional overrides make a name read as another one. All are refused by name
of the field, and nothing is silently repaired.
"""

import re
import unicodedata
from typing import Final

from convergio.kernel.errors import Invalid

SIZE_MAX: Final = 200
_BIDIRECTIONAL: Final = "\u202a-\u202e\u2066-\u2069"
_CONTROL: Final = "\x00-\x1f\x7f-\x9f\u2028\u2029"
_SURROGATE: Final = "\ud800-\udfff"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_DIGITS: Final = re.compile(r"[0-9](?:[ .-]?[0-9])+")
_CARD_SIZES: Final = range(13, 20)
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


def check_words(text: str, *, field: str, size_max: int = SIZE_MAX, lines: bool = False) -> str:
    """Return words that a person wrote. Raises: Invalid as `check_text`, and for a card number.

    Not for keys and numbers of others: one of ten that are long enough looks like a card's.
    """
    check_text(text, field=field, size_max=size_max, lines=lines)
    refuse_card_number(text, field=field)
    return text


def refuse_card_number(text: str, *, field: str) -> None:
    """Raise Invalid for text that holds a card number; it is neither stored nor repeated."""
    if holds_card_number(text):
        detail = "this holds a card number; send the gateway's token and never the number itself"
        raise Invalid(detail, code="card_number", field=field)


def holds_card_number(text: str) -> bool:
    """Say whether text holds a run of 13 to 19 digits that passes the Luhn check (ISO/IEC 7812).

    Blanks, dots and dashes between digits do not hide it, nor do digits of other scripts.
    """
    plain = "".join(
        str(unicodedata.digit(letter)) if letter.isdigit() else letter
        for letter in unicodedata.normalize("NFKC", text)
    )
    runs = (re.sub("[ .-]", "", found[0]) for found in _DIGITS.finditer(plain))
    return any(len(run) in _CARD_SIZES and _luhn(run) for run in runs)


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += sum(divmod(value, 10))
    return total % 10 == 0


def safe_cell(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: with an apostrophe in front if need be.

    Text that begins with an apostrophe gets one too, so that `bare_cell` returns what it was.
    """
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def bare_cell(cell: str) -> str:
    """Return the text of a safe cell."""
    return cell.removeprefix("'")
