"""One JSON line an event, with secrets and personal data masked before they are written.

Keys that name a secret are masked whatever they hold; in any text, API keys, bearer tokens, e-mail
addresses and card numbers are masked wherever they stand (SECURITY-NOTES, KEY-08, PAN-08).
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

_SECRET_NAMES: Final = re.compile(
    r"(?i)(secret|password|passwd|token|authorization|api_?key|kek|cookie|dsn|database_url|email|"
    r"address|tax_id|name_of)"
)
_PATTERNS: Final = (
    (re.compile(r"(cvg_(?:live|test)_)[0-9A-Za-z]+"), r"\1***"),
    (re.compile(r"(?i)(bearer\s+)[^\s\"']+"), r"\1***"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "***@***"),
    (re.compile(r"(?<![0-9A-Za-z-])(?:[0-9][ -]?){12,18}[0-9](?![0-9A-Za-z-])"), "***"),
    (re.compile(r"(://[^:/\s]+:)[^@\s]+@"), r"\1***@"),
)
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def redact(text: str) -> str:
    """Return the text with secrets and personal data masked."""
    for pattern, mask in _PATTERNS:
        text = pattern.sub(mask, text)
    return text


def _masked(value: object, name: str = "") -> object:
    if name and _SECRET_NAMES.search(name):
        return "***"
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _masked(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(each) for each in value]
    return value


def _redactor(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: _masked(value, "" if name == "event" else name) for name, value in event.items()}


def configure(level: str) -> None:
    """Write log lines of this level and above to standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redactor,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


def logger(name: str) -> Any:  # noqa: ANN401 - structlog's own lazy proxy
    """Return a logger bound to a part of the product."""
    return structlog.get_logger(part=name)
