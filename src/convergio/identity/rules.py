"""How a key is written, and what a principal may do.

A key is `cvg_live_`, 30 random base-62 characters (178 bits) and 6 that are the CRC-32 of all
before them. A scanner can tell a leaked key from noise offline, and a mistyped key is refused
without a query. The checksum is no protection: the 178 bits are, which is why a plain SHA-256 is
enough to keep (OWASP ASVS 5.0, 6.5.2).
"""

import hashlib
import re
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal

from convergio.identity.errors import BadKey, ScopeMissing
from convergio.identity.model import ApiKey, Principal, Scope
from convergio.kernel.errors import Invalid, require

PREFIX: Final = "cvg_live_"
ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_SIZE: Final = 30
_CHECKSUM_SIZE: Final = 6
_FORM: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM_SIZE + _CHECKSUM_SIZE}}}", re.ASCII)


def write_key(random: str) -> str:
    """Return the whole key around its random characters."""
    require(len(random) == RANDOM_SIZE, "a key has 30 random characters")
    return PREFIX + random + _checksum(PREFIX + random)


def _checksum(text: str) -> str:
    number, letters = zlib.crc32(text.encode("ascii")), ""
    for _ in range(_CHECKSUM_SIZE):
        number, place = divmod(number, len(ALPHABET))
        letters = ALPHABET[place] + letters
    return letters


def hash_key(presented: str) -> bytes:
    """Return the SHA-256 by which a key is found. Raises: BadKey unless its form and sum are right.

    Nothing has asked the database before this (attack KEY-03).
    """
    body = presented[:-_CHECKSUM_SIZE]
    if _FORM.fullmatch(presented) is None or _checksum(body) != presented[-_CHECKSUM_SIZE:]:
        raise BadKey
    return hashlib.sha256(presented.encode("ascii")).digest()


def read_scopes(names: Iterable[str]) -> list[Scope]:
    """Return the scopes in a fixed order, each once. Raises: Invalid for none or an unknown one."""
    asked = set(names)
    known = [scope for scope in Scope if scope in asked]
    if not known or len(known) != len(asked):
        detail = f"give one or more of: {', '.join(Scope)}"
        raise Invalid(detail, code="unknown_scope", field="scope")
    return known


def check_expiry(expires_at: datetime | None, *, now: datetime) -> None:
    """Refuse a key that would be born dead. Raises: Invalid."""
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        detail = "give an instant in the future with a time zone, such as 2027-01-31T00:00:00Z"
        raise Invalid(detail, code="bad_expiry", field="expires_at")


def status(api_key: ApiKey, *, now: datetime) -> Literal["active", "expired", "revoked"]:
    """Return whether the key still opens anything."""
    if api_key.revoked_at is not None:
        return "revoked"
    if api_key.expires_at is not None and api_key.expires_at <= now:
        return "expired"
    return "active"


def principal(api_key: ApiKey | None, *, now: datetime) -> Principal:
    """Return who the key stands for. Raises: BadKey, alike for unknown, expired and revoked ones.

    A scope that this version no longer knows grants nothing.
    """
    if api_key is None or status(api_key, now=now) != "active":
        raise BadKey
    scopes = frozenset(scope for scope in Scope if scope in api_key.scopes)
    return Principal(api_key.api_key_id, scopes, api_key.customer_id)


def require_scope(who: Principal, scope: Scope) -> None:
    """Let the principal pass that holds the scope, or `admin`. Raises: ScopeMissing."""
    if scope not in who.scopes and Scope.ADMIN not in who.scopes:
        raise ScopeMissing(scope)


def masked(api_key: ApiKey) -> str:
    """Return what may be shown of a key, for a list or a log."""
    return f"{api_key.prefix}***{api_key.last_four}"
