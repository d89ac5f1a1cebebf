"""An example of each operation for the document: what was sent and told in a business of a test.

`tests/integration/test_api_document.py` lives that business again and holds them to what is really
answered.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

FILE: Final = Path(__file__).with_name("examples.json")


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body and its answer: no `request` where there is no body, no `answer` for a file."""

    request: Any = None
    answer: Any = None
    media: str = "application/json"


def examples() -> Mapping[str, Example]:
    """Return the examples by operation id."""
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, Example])
