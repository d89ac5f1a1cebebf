"""Text that Postgres, a log or a page could not bear is refused at the door."""

import pytest

from convergio.kernel.errors import Invalid
from convergio.kernel.text import check_text, check_words, holds_card_number


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


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424242",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "card:378282246310005.",
        "4242.4242.4242.4242",
        "\uff14242424242424242",  # a full-width 4
        "\u0664\u0662424242424242 42",  # Arabic-Indic digits
        "x6304000000000000y",
    ],
)
def test_a_card_number_is_found_however_it_is_written(text: str) -> None:
    assert holds_card_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "tok_ok",
        "4242",
        "4242424242424241",
        "pm_1M4242424242",
        "",
        "12345678901234567890123",
        "visa",
    ],
)
def test_what_is_no_card_number_passes(text: str) -> None:
    assert not holds_card_number(text)


@pytest.mark.parametrize("field", ["note", "description"])
def test_words_with_a_card_number_are_refused_and_not_repeated(field: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_words("paid with 4242 4242 4242 4242", field=field)
    assert (caught.value.code, caught.value.field) == ("card_number", field)
    assert "4242" not in str(caught.value)


def test_a_long_number_that_is_no_word_passes() -> None:
    assert check_text("4242424242424242", field="key") == "4242424242424242"
