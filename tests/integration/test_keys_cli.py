"""The key-encryption key is changed with one command, and the old one may go."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from convergio.cli.main import app
from convergio.crypto.errors import MissingKeyEncryptionKey

Call = Callable[..., Result]
OLD, NEW = (
    f"{name}:{base64.b64encode(bytes([n]) * 32).decode()}" for n, name in ((1, "2025"), (2, "2026"))
)


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))

    def run(kek: str, *words: str) -> Result:
        monkeypatch.setenv("CONVERGIO_KEK", kek)
        return CliRunner().invoke(app, [*words, "--json"])

    return run


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


def test_everything_opens_with_the_new_key_alone_once_it_was_wrapped_anew(call: Call) -> None:
    for name in ("acme", "other"):
        answer(call(OLD, "customer", "create", name, "--name", f"{name} Ltd"))
    both = f"{NEW},{OLD}"
    assert answer(call(both, "customer", "show", "acme"))["name"] == "acme Ltd"
    assert isinstance(call(NEW, "customer", "show", "acme").exception, MissingKeyEncryptionKey)
    done = answer(call(both, "keys", "rewrap"))
    assert (done["rewrapped"] >= 2, done["key"], done["unused"]) == (True, "2026", ["2025"])
    assert answer(call(both, "keys", "rewrap"))["rewrapped"] == 0
    for name in ("acme", "other"):
        assert answer(call(NEW, "customer", "show", name))["name"] == f"{name} Ltd"
    assert isinstance(call(OLD, "customer", "show", "acme").exception, MissingKeyEncryptionKey)


def test_without_the_old_key_nothing_is_wrapped_and_it_is_named(call: Call) -> None:
    answer(call(OLD, "customer", "create", "acme", "--name", "Acme Ltd"))
    refused = call(NEW, "keys", "rewrap")
    assert isinstance(refused.exception, MissingKeyEncryptionKey)
    assert "'2025'" in refused.exception.detail
    assert answer(call(OLD, "customer", "show", "acme"))["name"] == "Acme Ltd"
