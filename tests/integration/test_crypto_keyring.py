"""The keyring on a real database: a key appears once, and what it sealed survives a new KEK."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from threading import Barrier
from uuid import UUID, uuid4

import pytest

from convergio.crypto import actions, rules, store
from convergio.crypto.actions import Keyring, rewrap
from convergio.crypto.errors import DamagedSeal, MissingDataKey, MissingKeyEncryptionKey
from convergio.crypto.model import INSTALLATION, StoredKey
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database, Tx

CUSTOMER, OTHER = uuid4(), uuid4()
TABLE, COLUMN = "customer", "sealed_name"


class Undo(Exception):
    """Ends a transaction without keeping it."""


def undo() -> None:
    raise Undo


@contextmanager
def undone(database: Database) -> Iterator[Tx]:
    with suppress(Undo), database.transaction() as tx:
        yield tx
        undo()


def kek(value: int) -> str:
    return f"k{value}:{base64.b64encode(bytes([value]) * 32).decode()}"


def keyring_of(now: datetime, *values: int) -> Keyring:
    text = ",".join(kek(value) for value in values or (1,))
    return Keyring(rules.parse_keks(text), clock=VirtualClock(now))


@pytest.fixture
def keyring(now: datetime) -> Keyring:
    return keyring_of(now)


def seal(keyring: Keyring, tx: Tx, customer_id: UUID = CUSTOMER, text: str = "Ada") -> bytes:
    return keyring.seal(tx, customer_id, TABLE, COLUMN, customer_id, text)


def opened(keyring: Keyring, tx: Tx, sealed: bytes, customer_id: UUID = CUSTOMER) -> str:
    return keyring.open(tx, customer_id, TABLE, COLUMN, customer_id, sealed)


def test_a_field_opens_in_another_process_with_the_same_kek(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as tx:
        sealed, retained = (
            seal(keyring, tx),
            keyring.seal_retained(tx, "invoice", "b", CUSTOMER, "X"),
        )
    with database.transaction() as tx:
        other = keyring_of(now)
        assert opened(other, tx, sealed) == "Ada"
        assert other.open_retained(tx, "invoice", "b", CUSTOMER, retained) == "X"


def test_a_customer_gets_one_key_at_the_first_seal_and_opening_makes_none(
    tx: Tx, keyring: Keyring
) -> None:
    assert store.find_data_keys(tx, CUSTOMER) == []
    sealed = [seal(keyring, tx) for _ in range(3)]
    assert len(store.find_data_keys(tx, CUSTOMER)) == 1
    assert len(set(sealed)) == 3
    with pytest.raises(MissingDataKey):
        opened(keyring, tx, sealed[0], OTHER)
    assert store.find_data_keys(tx, OTHER) == []


def test_cry_01_a_field_copied_to_another_customer_column_or_row_does_not_open(
    tx: Tx, keyring: Keyring
) -> None:
    sealed = seal(keyring, tx)
    seal(keyring, tx, OTHER)
    retained = keyring.seal_retained(tx, TABLE, COLUMN, CUSTOMER, "Ada")
    for place in (
        (OTHER, TABLE, COLUMN, OTHER),
        (OTHER, TABLE, COLUMN, CUSTOMER),
        (CUSTOMER, TABLE, "sealed_email", CUSTOMER),
        (CUSTOMER, "invoice", COLUMN, CUSTOMER),
        (CUSTOMER, TABLE, COLUMN, OTHER),
    ):
        with pytest.raises(DamagedSeal):
            keyring.open(tx, *place, sealed)
    with pytest.raises(DamagedSeal):
        keyring.open_retained(tx, TABLE, COLUMN, CUSTOMER, sealed)
    with pytest.raises(DamagedSeal):
        opened(keyring, tx, retained)


def test_cry_01_a_wrapped_key_copied_to_another_customer_does_not_open(
    tx: Tx, keyring: Keyring, now: datetime
) -> None:
    seal(keyring, tx)
    (key,) = store.find_data_keys(tx, CUSTOMER)
    stolen = type(key)(OTHER, key.key_version, key.kek_id, key.wrapped)
    assert store.insert_data_key(tx, stolen, now=now)
    with pytest.raises(DamagedSeal, match="k1"):
        seal(keyring, tx, OTHER)


def test_a_key_of_a_transaction_that_was_rolled_back_seals_nothing_afterwards(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    with undone(database) as tx:
        seal(keyring, tx)
        keyring.seal_retained(tx, "invoice", "sealed_buyer", CUSTOMER, "Ada")
        keyring.blind_index(tx, "sealed_email", "ada@example.com")
    with database.transaction() as tx:
        sealed = seal(keyring, tx)
        retained = keyring.seal_retained(tx, "invoice", "sealed_buyer", CUSTOMER, "Ada")
        index = keyring.blind_index(tx, "sealed_email", "ada@example.com")
    with database.transaction() as tx:
        fresh = keyring_of(now)
        assert opened(fresh, tx, sealed) == "Ada"
        assert fresh.open_retained(tx, "invoice", "sealed_buyer", CUSTOMER, retained) == "Ada"
        assert fresh.blind_index(tx, "sealed_email", "ada@example.com") == index


def test_a_key_of_a_savepoint_that_was_rolled_back_seals_nothing_afterwards(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as tx:
        with suppress(Undo), tx.savepoint():
            seal(keyring, tx)
            undo()
        sealed = seal(keyring, tx)
    with database.transaction() as tx:
        assert opened(keyring_of(now), tx, sealed) == "Ada"


def test_many_writers_that_make_the_same_keys_at_once_all_seal_under_the_one_that_stayed(
    database: Database, now: datetime
) -> None:
    start = Barrier(6)

    def write(_: int) -> tuple[bytes, bytes]:
        keyring = keyring_of(now)
        start.wait()
        with database.transaction() as tx:
            return seal(keyring, tx), keyring.seal_retained(tx, "invoice", "b", CUSTOMER, "Ada")

    with ThreadPoolExecutor(6) as pool:
        written = list(pool.map(write, range(6)))
    with database.transaction() as tx:
        fresh = keyring_of(now)
        assert {opened(fresh, tx, sealed) for sealed, _ in written} == {"Ada"}
        names = {fresh.open_retained(tx, "invoice", "b", CUSTOMER, kept) for _, kept in written}
        assert names == {"Ada"}
        assert len(store.find_data_keys(tx, CUSTOMER)) == len(store.find_retention_keys(tx)) == 1


def test_threads_share_one_keyring(database: Database, keyring: Keyring) -> None:
    customers = [uuid4() for _ in range(40)]

    def write(customer_id: UUID) -> str:
        with database.transaction() as tx:
            sealed = seal(keyring, tx, customer_id, str(customer_id))
        with database.transaction() as tx:
            return opened(keyring, tx, sealed, customer_id)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, customers)) == [str(customer) for customer in customers]


def test_cry_03_after_a_new_kek_everything_opens_and_new_keys_are_under_it(
    database: Database, now: datetime
) -> None:
    old, both = keyring_of(now, 1), keyring_of(now, 2, 1)
    with database.transaction() as tx:
        sealed, index = seal(old, tx), old.blind_index(tx, "sealed_email", "ada@example.com")
    with database.transaction() as tx:
        assert opened(both, tx, sealed) == "Ada"
        assert both.blind_index(tx, "sealed_email", "ada@example.com") == index
        seal(both, tx, OTHER)
        assert [key.kek_id for key in store.find_data_keys(tx, OTHER)] == ["k2"]
        assert [key.kek_id for key in store.find_data_keys(tx, CUSTOMER)] == ["k1"]


def test_cry_03_rewrapping_resumes_ends_and_lets_the_old_kek_go(
    database: Database, now: datetime
) -> None:
    old, both, new = keyring_of(now, 1), keyring_of(now, 2, 1), keyring_of(now, 2)
    customers = [uuid4() for _ in range(7)]
    with database.transaction() as tx:
        old.prepare(tx)
        sealed = {customer: seal(old, tx, customer) for customer in customers}
        index = old.blind_index(tx, "sealed_email", "ada@example.com")
    with undone(database) as tx:
        assert rewrap(tx, both, size_max=3) == 4  # three data keys and the retention key
    moved: list[int] = []
    while not moved or moved[-1]:
        with database.transaction() as tx:
            moved.append(rewrap(tx, both, size_max=3))
    assert sum(moved) == len(customers) + 2
    with database.transaction() as tx:
        assert {opened(new, tx, text, who) for who, text in sealed.items()} == {"Ada"}
        assert new.blind_index(tx, "sealed_email", "ada@example.com") == index
        new.prepare(tx)


def test_rewrapping_does_not_undo_what_another_process_just_did(tx: Tx, now: datetime) -> None:
    old, both = keyring_of(now, 1), keyring_of(now, 2, 1)
    seal(old, tx)
    (before,) = store.find_data_keys(tx, CUSTOMER)
    assert rewrap(tx, both) == 1
    (after,) = store.find_data_keys(tx, CUSTOMER)
    stale = type(after)(CUSTOMER, 1, "k3", b"stale")
    assert store.rewrap_data_key(tx, [(before, stale)]) == 0
    assert store.find_data_keys(tx, CUSTOMER) == [after]


def test_a_batch_that_another_process_wrapped_first_does_not_say_that_none_is_left(
    database: Database, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, both = keyring_of(now, 1), keyring_of(now, 2, 1)
    with database.transaction() as tx:
        for customer in (uuid4(), uuid4()):
            seal(old, tx, customer)
    find = store.find_data_keys_to_rewrap

    def found_late(tx: Tx, kek_id: str, *, size_max: int) -> list[StoredKey]:
        found = find(tx, kek_id, size_max=size_max)
        monkeypatch.undo()
        with database.transaction() as other:
            assert rewrap(other, both, size_max=1) == 1
        return found

    monkeypatch.setattr(store, "find_data_keys_to_rewrap", found_late)
    moved = [1]
    while moved[-1]:
        with database.transaction() as tx:
            moved.append(rewrap(tx, both, size_max=1))
    with database.transaction() as tx:
        assert find(tx, "k2", size_max=9) == []


def test_a_kek_that_is_gone_is_named_and_nothing_opens_or_is_made(
    database: Database, now: datetime
) -> None:
    with database.transaction() as tx:
        keyring_of(now, 1).prepare(tx)
        sealed = seal(keyring_of(now, 1), tx)
    for attempt in (
        lambda tx: opened(keyring_of(now, 2), tx, sealed),
        lambda tx: seal(keyring_of(now, 2), tx),
        lambda tx: keyring_of(now, 2).prepare(tx),
        lambda tx: rewrap(tx, keyring_of(now, 2)),
    ):
        with pytest.raises(MissingKeyEncryptionKey, match="'k1'"), database.transaction() as tx:
            attempt(tx)


@pytest.mark.parametrize("away", [actions.HELD_KEY_AGE_MAX, timedelta(microseconds=-1)])
def test_cry_08_a_held_key_is_asked_for_again_outside_its_time(
    database: Database, now: datetime, away: timedelta
) -> None:
    keyring = keyring_of(now)
    with database.transaction() as tx:
        sealed = seal(keyring, tx)
    with database.transaction() as tx:
        assert opened(keyring, tx, sealed) == "Ada"
    keyring.keks = rules.parse_keks(kek(2))  # the KEK is taken away while the process runs
    with database.transaction() as tx:
        assert opened(keyring, tx, sealed) == "Ada"
    keyring._clock = VirtualClock(now + away)  # noqa: SLF001 - a clock of its own goes forward only
    with pytest.raises(MissingKeyEncryptionKey), database.transaction() as tx:
        opened(keyring, tx, sealed)


def test_the_held_keys_are_bounded(
    database: Database, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "HELD_KEYS_MAX", 3)
    keyring, customers = keyring_of(now), [uuid4() for _ in range(5)]
    with database.transaction() as tx:
        sealed = {customer: seal(keyring, tx, customer) for customer in customers}
    with database.transaction() as tx:
        for _ in range(2):
            assert {opened(keyring, tx, text, who) for who, text in sealed.items()} == {"Ada"}
    assert len(keyring._held) == 3  # noqa: SLF001 - the bound has no other face


def test_the_keys_in_the_database_are_wrapped(tx: Tx, keyring: Keyring) -> None:
    keyring.prepare(tx)
    (retention,), (root,) = store.find_retention_keys(tx), store.find_data_keys(tx, INSTALLATION)
    for key in (retention, root):
        secret = rules.unwrap(keyring.keks[0], key)
        assert len(secret) == 32
        assert secret not in key.wrapped
