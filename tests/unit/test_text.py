"""Text that Postgres, a log or a page could not bear is refused at the door."""

import pytest

from convergio.kernel.errors import Invalid
from convergio.kernel.text import check_text


@pytest.mark.parametrize("text", ["a", "x" * 200, "Ünïcødé 株式会社 🚀", "two words", "O'Hara; --"])
def test_ordinary_text_passes_unchanged(text: str) -> None:
    assert check_text(text, field="name") == text


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "x" * 201, " padded", "padded\u00a0", "nul\x00", "line\nbreak", "tab\t",
        "esc\x1b[31m", "del\x7f", "c1\x85", "half \ud800", "turned \u202e round", "split\u2028line",
    ],
)  # fmt: skip
def test_text_with_a_character_that_forges_or_breaks_is_refused_unseen(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_text(text, field="name")
    assert caught.value.field == "name"
    assert caught.value.code == "bad_text"
    assert "half" not in str(caught.value)


def test_an_address_may_have_lines_and_nothing_else_that_controls() -> None:
    assert check_text("1 High Street\nOxford", field="address", lines=True)
    with pytest.raises(Invalid):
        check_text("1 High Street\r\nOxford", field="address", lines=True)
