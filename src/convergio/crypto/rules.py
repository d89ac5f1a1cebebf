"""The formats: how a KEK is written, a key wrapped, a field sealed and an index computed.

A sealed field is `format (1) | key version (4) | nonce (12) | ciphertext and tag` under
AES-256-GCM. The associated data name the app, the owner, table, column, row and the header itself,
each with its length before it, so that no two places can ever share one. Pure: nonces and secrets
are given. Nonces are random, which NIST SP 800-38D allows for 2^32 seals a key.
"""

import base64
import binascii
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from convergio.crypto.errors import BadKeyEncryptionKey, DamagedSeal, MissingKeyEncryptionKey
from convergio.crypto.model import KeyEncryptionKey, Place, StoredKey
from convergio.kernel.errors import Invalid, require

APP: Final = "convergio"
KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_UUID_SIZE: Final = 16
_FORMAT: Final = b"\x01"
_VERSION_SIZE: Final = 4
_HEADER_SIZE: Final = len(_FORMAT) + _VERSION_SIZE
_KEK_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,60}", re.ASCII)
_VARIABLE: Final = "CONVERGIO_KEK"


def parse_keks(text: str) -> tuple[KeyEncryptionKey, ...]:
    """Read `base64` or `id:base64`, several separated by commas, the newest first.

    A key without an id is named by a fingerprint. A labelled key also answers to its fingerprint,
    so a label may be added later. Raises: BadKeyEncryptionKey, never showing what was written.
    """
    keks = tuple(_parse_kek(part.strip()) for part in text.split(","))
    names = [name for kek in keks for name in {kek.kek_id, kek.fingerprint}]
    if len(set(names)) != len(names):
        detail = "two keys have the same id or the same value; give each key once"
        raise BadKeyEncryptionKey(detail, field=_VARIABLE)
    return keks


def _parse_kek(part: str) -> KeyEncryptionKey:
    label, colon, encoded = part.rpartition(":")
    try:
        secret = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_SIZE or (colon and _KEK_ID.fullmatch(label) is None):
        detail = (
            "write 32 random bytes as base64, or ID:BASE64 with an id of letters, digits, '.', '_'"
            " or '-'; make one with: head -c 32 /dev/urandom | base64"
        )
        raise BadKeyEncryptionKey(detail, field=_VARIABLE)
    fingerprint = "kek-" + hashlib.sha256(associated(APP, "kek id") + secret).hexdigest()[:12]
    return KeyEncryptionKey(label or fingerprint, fingerprint, secret)


def find_kek(keks: Sequence[KeyEncryptionKey], kek_id: str) -> KeyEncryptionKey:
    """Return the KEK that wrapped a key. Raises: MissingKeyEncryptionKey naming it."""
    for kek in keks:
        if kek_id in (kek.kek_id, kek.fingerprint):
            return kek
    detail = (
        f"the key-encryption key '{kek_id}' is not configured; put it back into {_VARIABLE},"
        " or restore the key file of this installation"
    )
    raise MissingKeyEncryptionKey(detail)


def associated(*parts: str | bytes) -> bytes:
    """Join parts so that they can be told apart again: each with its length in four bytes."""
    encoded = (part.encode() if isinstance(part, str) else part for part in parts)
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def wrap(
    kek: KeyEncryptionKey, owner: UUID | None, version: int, *, secret: bytes, nonce: bytes
) -> StoredKey:
    """Wrap a data key, bound to its owner, version and KEK."""
    about = _wrapping(owner, version, kek.kek_id)
    wrapped = _FORMAT + nonce + AESGCM(kek.secret).encrypt(nonce, secret, about)
    return StoredKey(owner, version, kek.kek_id, wrapped)


def unwrap(kek: KeyEncryptionKey, stored: StoredKey) -> bytes:
    """Return the data key. Raises: DamagedSeal when the row was altered or moved."""
    about = _wrapping(stored.customer_id, stored.key_version, stored.kek_id)
    start = len(_FORMAT) + NONCE_SIZE
    form, nonce, text = stored.wrapped[:1], stored.wrapped[1:start], stored.wrapped[start:]
    try:
        secret = AESGCM(kek.secret).decrypt(nonce, text, about)
    except (InvalidTag, ValueError):
        secret = b""
    if form != _FORMAT or len(secret) != KEY_SIZE:
        detail = f"a data key does not open with the key-encryption key '{stored.kek_id}'"
        raise DamagedSeal(detail, code="data_key_damaged")
    return secret


def _wrapping(owner: UUID | None, version: int, kek_id: str) -> bytes:
    kind = "retention_key" if owner is None else "data_key"
    return associated(APP, kind, _owner(owner), str(version), kek_id)


def _owner(owner: UUID | None) -> bytes:
    return b"" if owner is None else owner.bytes


def seal_text(secret: bytes, version: int, nonce: bytes, place: Place, text: str) -> bytes:
    """Seal text for one place. Raises: Invalid for text that is not Unicode (a lone surrogate)."""
    plain = _encoded(text, place.column)
    header = _FORMAT + version.to_bytes(_VERSION_SIZE, "big")
    return header + nonce + AESGCM(secret).encrypt(nonce, plain, _placed(header, place))


def seal_retained_texts(
    secret: bytes, version: int, nonces: bytes, place: tuple[str, str], rows: Mapping[UUID, str]
) -> list[bytes]:
    """Seal the text of many rows for one (table, column) under the retention key, in their order.

    What `seal_text` makes of each; `nonces` holds theirs, one after the other. Raises: as it.
    """
    header = _FORMAT + version.to_bytes(_VERSION_SIZE, "big")
    table, column = place
    about = associated(APP, "retained", header, table, column, b"") + _UUID_SIZE.to_bytes(4, "big")
    encrypt = AESGCM(secret).encrypt
    sealed = []
    for place_, (row, text) in enumerate(rows.items()):
        nonce = nonces[place_ * NONCE_SIZE : (place_ + 1) * NONCE_SIZE]
        sealed.append(header + nonce + encrypt(nonce, _encoded(text, column), about + row.bytes))
    return sealed


def _encoded(text: str, column: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        detail = "it holds a character that is not Unicode text; remove it"
        raise Invalid(detail, code="bad_text", field=column) from None


def key_version(sealed: bytes) -> int:
    """Return which version of the owner's key sealed the field. Raises: DamagedSeal."""
    size_min = _HEADER_SIZE + NONCE_SIZE + _TAG_SIZE
    if sealed[: len(_FORMAT)] != _FORMAT or len(sealed) < size_min:
        raise DamagedSeal("a sealed field has a format that this version does not know")
    return int.from_bytes(sealed[len(_FORMAT) : _HEADER_SIZE], "big")


def open_text(secret: bytes, place: Place, sealed: bytes) -> str:
    """Return the text. Raises: DamagedSeal when it was altered or comes from another place."""
    header, rest = sealed[:_HEADER_SIZE], sealed[_HEADER_SIZE:]
    nonce, text = rest[:NONCE_SIZE], rest[NONCE_SIZE:]
    try:
        return AESGCM(secret).decrypt(nonce, text, _placed(header, place)).decode()
    except (InvalidTag, ValueError):
        detail = f"{place.table}.{place.column} does not open: it was altered or moved"
        raise DamagedSeal(detail) from None


def _placed(header: bytes, place: Place) -> bytes:
    kind = "retained" if place.owner is None else "field"
    row = place.row.bytes if isinstance(place.row, UUID) else place.row
    return associated(APP, kind, header, place.table, place.column, _owner(place.owner), row)


def normalised(value: str) -> str:
    """Return the form in which equal values are equal: NFKC, case folded, trimmed."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold()).strip()


def blind_index(root: bytes, column: str, value: str) -> bytes:
    """Return HMAC-SHA256 of the normalised value under a key of the column's own (HKDF, RFC 5869).

    Equal values have equal indexes: the database shows that two rows are equal, and nothing else.
    """
    require(len(root) == KEY_SIZE, "the root of the blind indexes has the wrong size")
    about = associated(APP, "blind index", "1", column)
    key = HKDFExpand(SHA256(), KEY_SIZE, about).derive(root)
    return hmac.digest(key, normalised(value).encode(), "sha256")
