"""The keyring: seals and opens fields, making and unwrapping data keys on the way.

Its one danger is a key that exists in memory but not in the database: what it seals is lost. So a
key that a transaction has made is read back from the database until that transaction has ended,
and only keys that another transaction committed are held in memory, for a bounded time.
"""

import base64
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Final
from uuid import UUID
from weakref import WeakKeyDictionary

from convergio.crypto import rules, store
from convergio.crypto.errors import BadKeyEncryptionKey, MissingDataKey
from convergio.crypto.model import INSTALLATION, DataKeys, KeyEncryptionKey, Place, StoredKey
from convergio.infra.clock import Clock
from convergio.infra.db import Tx
from convergio.kernel.errors import require

HELD_KEYS_MAX: Final = 10_000
HELD_KEY_AGE_MAX: Final = timedelta(minutes=5)
REWRAP_SIZE_MAX: Final = 1_000
_ONLY_OWNER: Final = 0o600


class Keyring:
    """The keys of one installation: one object a process and database, safe to share by threads."""

    def __init__(self, keks: tuple[KeyEncryptionKey, ...], *, clock: Clock) -> None:
        """Take the key-encryption keys, the newest first; the clock dates and ages data keys."""
        require(bool(keks), "a keyring needs a key-encryption key")
        self.keks = keks
        self._clock = clock
        self._held: OrderedDict[UUID | None, DataKeys] = OrderedDict()
        self._made: WeakKeyDictionary[Tx, set[UUID | None]] = WeakKeyDictionary()
        self._lock = Lock()

    def __reduce__(self) -> tuple[Callable[..., "Keyring"], tuple[object, ...]]:
        """Go to another process of ours without what is held of data keys."""
        return partial(Keyring, clock=self._clock), (self.keks,)

    def __repr__(self) -> str:
        """Name the key-encryption keys; show no secret."""
        return f"Keyring({', '.join(kek.kek_id for kek in self.keks)})"

    def prepare(self, tx: Tx) -> None:
        """Make the keys that the installation shares, and prove that this KEK opens them.

        For the start of a process, so that a wrong KEK is found before the first customer is.
        Raises: MissingKeyEncryptionKey, DamagedSeal.
        """
        for owner in (INSTALLATION, None):
            self._keys_to_seal(tx, owner)

    def seal(  # noqa: PLR0917 - the parts of one place
        self, tx: Tx, customer_id: UUID, table: str, column: str, row_id: UUID | str, text: str
    ) -> bytes:
        """Seal one field of a customer under that customer's own key, made at the first seal."""
        return self._seal(tx, Place(customer_id, table, column, row_id), text)

    def open(  # noqa: PLR0917 - the parts of one place
        self, tx: Tx, customer_id: UUID, table: str, column: str, row_id: UUID | str, sealed: bytes
    ) -> str:
        """Open one field. Raises: DamagedSeal, MissingDataKey, MissingKeyEncryptionKey."""
        return self._open(tx, Place(customer_id, table, column, row_id), sealed)

    def seal_retained(
        self, tx: Tx, table: str, column: str, row_id: UUID | str, text: str
    ) -> bytes:
        """Seal what tax law keeps under the retention key, which outlives the customer's own."""
        return self._seal(tx, Place(None, table, column, row_id), text)

    def seal_many_retained(
        self, tx: Tx, table: str, column: str, rows: Mapping[UUID, str]
    ) -> list[bytes]:
        """Seal a column of many rows as `seal_retained` does each, in their order."""
        keys = self._keys_to_seal(tx, None)
        nonces = os.urandom(rules.NONCE_SIZE * len(rows))
        secret = keys.secrets[keys.newest]
        return rules.seal_retained_texts(secret, keys.newest, nonces, (table, column), rows)

    def open_retained(
        self, tx: Tx, table: str, column: str, row_id: UUID | str, sealed: bytes
    ) -> str:
        """Open what tax law keeps. Raises: as `open`."""
        return self._open(tx, Place(None, table, column, row_id), sealed)

    def hold(self, tx: Tx, customer_ids: Collection[UUID]) -> None:
        """Read the keys of many customers in one query, for the seals and opens that follow."""
        wanted = [owner for owner in customer_ids if self._find_held(owner) is None]
        stored = store.find_many_data_keys(tx, wanted) if wanted else []
        for owner, keys in groupby(stored, key=lambda key: key.customer_id):
            self._keep(tx, owner, list(keys))

    def blind_index(self, tx: Tx, column: str, value: str) -> bytes:
        """Return the index by which equal values of a column are found without opening any.

        Its key is derived from a wrapped root, not from the KEK: it survives a change of KEK.
        """
        keys = self._keys_to_seal(tx, INSTALLATION)
        return rules.blind_index(keys.secrets[min(keys.secrets)], column, value)

    def _seal(self, tx: Tx, place: Place, text: str) -> bytes:
        keys = self._keys_to_seal(tx, place.owner)
        nonce = os.urandom(rules.NONCE_SIZE)
        return rules.seal_text(keys.secrets[keys.newest], keys.newest, nonce, place, text)

    def _open(self, tx: Tx, place: Place, sealed: bytes) -> str:
        version = rules.key_version(sealed)
        held = self._find_held(place.owner)
        keys = held if held and version in held.secrets else self._read(tx, place.owner)
        if keys is None or version not in keys.secrets:
            detail = f"the data key of {place.table}.{place.column} is not there; it was destroyed"
            raise MissingDataKey(detail)
        return rules.open_text(keys.secrets[version], place, sealed)

    def _keys_to_seal(self, tx: Tx, owner: UUID | None) -> DataKeys:
        keys = self._find_held(owner) or self._read(tx, owner)
        if keys is None:
            self._make(tx, owner)
            keys = self._read(tx, owner)
        if keys is None:
            raise MissingDataKey("a data key that was just made is not there")
        return keys

    def _find_held(self, owner: UUID | None) -> DataKeys | None:
        now = self._clock.now()
        with self._lock:
            keys = self._held.get(owner)
            if keys is None or not keys.read_at <= now < keys.read_at + HELD_KEY_AGE_MAX:
                return None
            self._held.move_to_end(owner)
            return keys

    def _read(self, tx: Tx, owner: UUID | None) -> DataKeys | None:
        stored = store.find_retention_keys(tx) if owner is None else store.find_data_keys(tx, owner)
        return self._keep(tx, owner, stored) if stored else None

    def _keep(self, tx: Tx, owner: UUID | None, stored: Sequence[StoredKey]) -> DataKeys:
        secrets = {key.key_version: self._unwrap(key) for key in stored}
        keys = DataKeys(max(secrets), secrets, self._clock.now())
        with self._lock:
            if owner not in self._made.get(tx, ()):
                self._held[owner] = keys
                self._held.move_to_end(owner)
                while len(self._held) > HELD_KEYS_MAX:
                    self._held.popitem(last=False)
        return keys

    def _make(self, tx: Tx, owner: UUID | None) -> None:
        secret, nonce = os.urandom(rules.KEY_SIZE), os.urandom(rules.NONCE_SIZE)
        key = rules.wrap(self.keks[0], owner, 1, secret=secret, nonce=nonce)
        insert = store.insert_retention_key if owner is None else store.insert_data_key
        if insert(tx, key, now=self._clock.now()):
            with self._lock:
                self._made.setdefault(tx, set()).add(owner)

    def _unwrap(self, key: StoredKey) -> bytes:
        return rules.unwrap(rules.find_kek(self.keks, key.kek_id), key)


def rewrap(tx: Tx, keyring: Keyring, *, size_max: int = REWRAP_SIZE_MAX) -> int:
    """Wrap a batch of keys with the newest KEK; return how many it was, 0 when none is left.

    Call it in one transaction each until it returns 0; stopping half-way harms nothing, and the
    data keys themselves do not change. Those that another process wraps at the same time count
    too: none of them says that more are not left. Raises: MissingKeyEncryptionKey, DamagedSeal.
    """
    newest = keyring.keks[0]
    retained = store.find_retention_keys_to_rewrap(tx, newest.kek_id, size_max=size_max)
    owned = store.find_data_keys_to_rewrap(tx, newest.kek_id, size_max=size_max)
    store.rewrap_retention_key(tx, [(key, _rewrapped(keyring, key)) for key in retained])
    store.rewrap_data_key(tx, [(key, _rewrapped(keyring, key)) for key in owned])
    return len(retained) + len(owned)


def _rewrapped(keyring: Keyring, key: StoredKey) -> StoredKey:
    secret = rules.unwrap(rules.find_kek(keyring.keks, key.kek_id), key)
    nonce = os.urandom(rules.NONCE_SIZE)
    return rules.wrap(keyring.keks[0], key.customer_id, key.key_version, secret=secret, nonce=nonce)


def open_keyring(*, kek: str | None, file: Path, clock: Clock) -> Keyring:
    """Build the keyring from the text of CONVERGIO_KEK or, when that is not set, from a file.

    A missing file is made with a new random key, readable by its owner only. An empty variable is
    refused: it is a deployment that lost its secret. Raises: BadKeyEncryptionKey.
    """
    text = kek if kek is not None else _read_or_make(file)
    return Keyring(rules.parse_keks(text), clock=clock)


def _read_or_make(file: Path) -> str:
    """Return the key file's text, making the file when there is none.

    A new file appears under its name only when it is complete, so that of several processes that
    start at once one wins and none reads half a key.
    """
    try:
        if not file.is_symlink() and not file.exists():
            _make_file(file)
        return _read_file(file)
    except OSError as error:
        detail = f"the key file {file} cannot be used: {error.strerror}; mend it or set this"
        raise BadKeyEncryptionKey(detail, field="CONVERGIO_KEK") from None


def _make_file(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, _ONLY_OWNER)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            writer.write(base64.b64encode(os.urandom(rules.KEY_SIZE)) + b"\n")
            writer.flush()
            os.fsync(writer.fileno())
        try:
            file.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink()


def _read_file(file: Path) -> str:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as reader:
        found = os.fstat(reader.fileno())
        if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o077:
            detail = f"others can read the key file {file}; run: chmod 600 {file}"
            raise BadKeyEncryptionKey(detail, field="CONVERGIO_KEK")
        return reader.read(4096).decode("ascii", "replace").strip()
