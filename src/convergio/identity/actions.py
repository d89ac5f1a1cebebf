"""Make, recognise, list and end API keys.

A recognised key is held in a `KeyCache` for at most 30 seconds, so a hot request costs no query
and a revoked key is dead on every node within that time (attack KEY-01 allows 60).
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta
from threading import Lock
from typing import Final
from uuid import UUID

from convergio.identity import rules, store
from convergio.identity.errors import KeyNotFound
from convergio.identity.model import ApiKey, NewApiKey, Principal
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.kernel.text import check_text

HELD_AGE_MAX: Final = timedelta(seconds=30)
HELD_MAX: Final = 10_000
PAGE_SIZE_MAX: Final = 100


class KeyCache:
    """Principals of keys that were good a moment ago, by hash. One a process, shared by threads."""

    def __init__(self, *, size_max: int = HELD_MAX) -> None:
        """Start empty; the key that was used longest ago goes first when it is full."""
        self._size_max = size_max
        self._held: OrderedDict[bytes, tuple[Principal, datetime, datetime]] = OrderedDict()
        self._lock = Lock()

    def find(self, presented: str, *, now: datetime) -> Principal | None:
        """Return who presents the key, or None when the database must be asked.

        An edge calls this before it opens a transaction. Raises: BadKey for a malformed key.
        """
        key_hash = rules.hash_key(presented)
        with self._lock:
            principal, since, until = self._held.get(key_hash, (None, now, now))
            if principal is None or not since <= now < until:
                return None
            self._held.move_to_end(key_hash)
            return principal

    def keep(
        self, key_hash: bytes, principal: Principal, *, now: datetime, until: datetime
    ) -> None:
        """Hold a principal from now on, up to `until`."""
        with self._lock:
            self._held[key_hash] = (principal, now, until)
            self._held.move_to_end(key_hash)
            while len(self._held) > self._size_max:
                self._held.popitem(last=False)


def authenticate(
    tx: Tx, presented: str, *, now: datetime, cache: KeyCache | None = None
) -> Principal:
    """Return who presents the key, and remember it in the cache.

    Raises: BadKey, before any query when the key's form or checksum is wrong.
    """
    key_hash = rules.hash_key(presented)
    held = cache.find(presented, now=now) if cache else None
    if held is not None:
        return held
    api_key = store.find_api_key_by_hash(tx, key_hash)
    principal = rules.principal(api_key, now=now)
    if cache and api_key:
        until = min(
            now + HELD_AGE_MAX, api_key.expires_at or datetime.max.replace(tzinfo=now.tzinfo)
        )
        cache.keep(key_hash, principal, now=now, until=until)
    return principal


def create(
    tx: Tx,
    *,
    name: str,
    scopes: Iterable[str],
    now: datetime,
    expires_at: datetime | None = None,
    customer_id: UUID | None = None,
) -> NewApiKey:
    """Make a key and return its secret, which nobody can read again.

    Emits: api_key.created. Raises: Invalid.
    """
    check_text(name, field="name")
    granted = rules.read_scopes(scopes)
    rules.check_expiry(expires_at, now=now)
    random = "".join(secrets.choice(rules.ALPHABET) for _ in range(rules.RANDOM_SIZE))
    secret = rules.write_key(random)
    api_key = ApiKey(
        api_key_id=new_id(now),
        name=name,
        prefix=rules.PREFIX,
        last_four=secret[-4:],
        scopes=[scope.value for scope in granted],
        customer_id=customer_id,
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
    )
    store.insert_api_key(tx, api_key, key_hash=rules.hash_key(secret))
    outbox.emit(
        tx,
        "api_key.created",
        customer_id=customer_id,
        subject=api_key.api_key_id,
        data={"scopes": api_key.scopes},
        now=now,
    )
    return NewApiKey(api_key, secret)


def page(
    tx: Tx,
    *,
    customer_id: UUID | None = None,
    after: UUID | None = None,
    size_max: int = PAGE_SIZE_MAX,
) -> list[ApiKey]:
    """Return keys in the order of their making, dead ones too, after the given id."""
    return store.find_api_keys(tx, customer_id=customer_id, after=after, size_max=size_max)


def revoke(tx: Tx, api_key_id: UUID, *, now: datetime) -> ApiKey:
    """End a key for ever; ending it twice keeps the first time.

    Emits: api_key.revoked, once. Raises: KeyNotFound.
    """
    revoked = store.revoke_api_key(tx, api_key_id, now=now)
    api_key = store.find_api_key(tx, api_key_id)
    if api_key is None:
        raise KeyNotFound
    if revoked:
        outbox.emit(
            tx, "api_key.revoked", customer_id=api_key.customer_id, subject=api_key_id, now=now
        )
    return api_key
