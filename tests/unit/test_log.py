"""Log lines: one JSON object each, with secrets and personal data masked wherever they stand."""

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
import structlog

from convergio.infra import log

KEY = "cvg_live_" + "a1B2" * 9
SECRETS = {
    "an API key": KEY,
    "a bearer token": "Authorization: Bearer eyJhbGciOi.J9",
    "an e-mail address": "ada.lovelace+billing@example.co.uk",
    "a card number": "4242424242424242",
    "a spaced card number": "4242 4242 4242 4242",
    "a dashed card number": "4242-4242-4242-4242",
    "a password in a connection string": "postgresql://ada:swordfish@db/billing",
}
PARTS = ("a1B2", "eyJ", "lovelace", "4242", "swordfish")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave structlog as it was."""
    yield
    structlog.reset_defaults()


def lines(**values: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - whatever a log line may hold
    """Write one line and return what was written."""
    written = io.StringIO()
    with redirect_stderr(written):
        log.configure("debug")
        log.logger("test").info(values.pop("event", "happened"), **values)
    return [json.loads(line) for line in written.getvalue().splitlines()]


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
@pytest.mark.parametrize("place", ["event", "value", "list", "dict"])
def test_a_secret_is_masked_wherever_it_stands(secret: str, place: str) -> None:
    text = f"before {secret} after"
    values: dict[str, dict[str, Any]] = {
        "event": {"event": text},
        "value": {"note": text},
        "list": {"notes": [1, (text,)]},
        "dict": {"notes": {"inner": {"deep": text}}},
    }
    (line,) = lines(**values[place])
    shown = json.dumps(line)
    assert not [part for part in PARTS if part in shown], shown
    assert "before" in shown


@pytest.mark.parametrize(
    "name", ["password", "api_key", "apikey", "Authorization", "kek", "email", "tax_id", "address"]
)
def test_a_key_that_names_a_secret_is_masked_whatever_it_holds(name: str) -> None:
    (line,) = lines(**{name: "plain-looking"})
    assert line[name] == "***"


def test_an_exception_is_masked_too() -> None:
    error = ValueError(f"cannot reach {SECRETS['a password in a connection string']}")
    (line,) = lines(exc_info=error)
    assert "swordfish" not in line["exception"]
    assert "ValueError" in line["exception"]


def test_what_is_no_secret_stays_readable() -> None:
    (line,) = lines(accepted=3, invoice="CVG-2025-000123", id="0197-4d2c-12-345678901")
    assert (line["accepted"], line["invoice"]) == (3, "CVG-2025-000123")


def test_inj_12_a_line_feed_in_a_value_stays_inside_its_line() -> None:
    (line,) = lines(agent='x\r\n{"event":"forged"}\x1b[31m')
    assert line["event"] == "happened"


def test_lines_below_the_level_are_not_written() -> None:
    written = io.StringIO()
    with redirect_stderr(written):
        log.configure("warning")
        log.logger("test").info("quiet")
        log.logger("test").warning("loud")
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["loud"]
