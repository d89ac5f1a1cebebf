"""API keys on a real database: shown once, found by hash, dead when they should be."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from convergio.identity import rules
from convergio.identity.actions import (
    HELD_AGE_MAX,
    KeyCache,
    authenticate,
    create,
    page,
    revoke,
)
from convergio.identity.errors import BadKey, KeyNotFound
from convergio.identity.model import NewApiKey, Scope
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Invalid


class NoDatabase(Tx):
    """A transaction that must not be used."""

    __slots__ = ()

    def __init__(self) -> None:
        """Hold no connection: whoever asks for one fails."""


def make(tx: Tx, now: datetime, **values: Any) -> NewApiKey:  # noqa: ANN401 - as create takes them
    return create(tx, **{"name": "gateway", "scopes": ["usage:write"], "now": now, **values})


def dump(tx: Tx) -> str:
    """Return everything that the tables of keys and facts hold, as text."""
    rows = tx.raw.execute("SELECT to_jsonb(k) FROM api_key k").fetchall()
    facts = tx.raw.execute("SELECT to_jsonb(o) FROM outbox_event o").fetchall()
    return repr(rows) + repr(facts)


def fact_types(tx: Tx) -> list[str]:
    query = "SELECT type FROM outbox_event ORDER BY outbox_id"
    return [row[0] for row in tx.raw.execute(query).fetchall()]


def test_a_new_key_lets_its_holder_in_with_its_scopes(tx: Tx, now: datetime) -> None:
    customer_id = uuid4()
    made = make(tx, now, scopes=["usage:read", "usage:write"], customer_id=customer_id)
    who = authenticate(tx, made.secret, now=now)
    assert who.api_key_id == made.api_key.api_key_id
    assert who.scopes == {Scope.USAGE_READ, Scope.USAGE_WRITE}
    assert who.customer_id == customer_id
    assert fact_types(tx) == ["api_key.created"]


def test_key_02_a_dump_holds_hash_prefix_and_last_four_only(tx: Tx, now: datetime) -> None:
    made = make(tx, now)
    random, text = made.secret.removeprefix(rules.PREFIX), dump(tx)
    assert random not in text
    for place in range(len(random) - 8):
        assert random[place : place + 8] not in text
    assert made.secret[-4:] in text
    assert rules.hash_key(made.secret).hex() in text


def test_key_02_a_list_cannot_show_a_key_again(tx: Tx, now: datetime) -> None:
    made = make(tx, now)
    (listed,) = page(tx)
    assert listed == made.api_key
    assert made.secret not in repr(asdict(listed))
    assert rules.masked(listed) == f"cvg_live_***{made.secret[-4:]}"


def test_two_keys_are_never_alike(tx: Tx, now: datetime) -> None:
    assert len({make(tx, now).secret for _ in range(50)}) == 50


def test_key_03_a_key_with_a_wrong_checksum_asks_no_database(now: datetime) -> None:
    wrong = rules.write_key("0" * 30)[:-1] + "!"
    with pytest.raises(BadKey):
        authenticate(NoDatabase(), wrong, now=now)
    with pytest.raises(BadKey):
        KeyCache().find(wrong, now=now)


def test_an_unknown_key_of_good_form_is_refused(tx: Tx, now: datetime) -> None:
    with pytest.raises(BadKey):
        authenticate(tx, rules.write_key("0" * 30), now=now)


def test_key_01_a_revoked_key_is_dead_at_once_here_and_soon_where_it_was_held(
    database: Database, now: datetime
) -> None:
    elsewhere = KeyCache()
    with database.transaction() as tx:
        made = make(tx, now)
        authenticate(tx, made.secret, now=now, cache=elsewhere)
    with database.transaction() as tx:
        revoke(tx, made.api_key.api_key_id, now=now)
    with database.transaction() as tx:
        with pytest.raises(BadKey):
            authenticate(tx, made.secret, now=now)
        until = now + HELD_AGE_MAX
        assert timedelta(seconds=60) > HELD_AGE_MAX
        assert elsewhere.find(made.secret, now=until) is None
        with pytest.raises(BadKey):
            authenticate(tx, made.secret, now=until, cache=elsewhere)


def test_a_held_key_costs_no_query_and_holds_only_good_keys(tx: Tx, now: datetime) -> None:
    cache, made = KeyCache(), make(tx, now)
    first = authenticate(tx, made.secret, now=now, cache=cache)
    assert authenticate(NoDatabase(), made.secret, now=now, cache=cache) == first
    unknown = rules.write_key("0" * 30)
    with pytest.raises(BadKey):
        authenticate(tx, unknown, now=now, cache=cache)
    assert cache.find(unknown, now=now) is None


def test_a_key_expires_to_the_instant_also_where_it_is_held(tx: Tx, now: datetime) -> None:
    expires_at, cache = now + timedelta(seconds=5), KeyCache()
    made = make(tx, now, expires_at=expires_at)
    authenticate(tx, made.secret, now=now, cache=cache)
    assert cache.find(made.secret, now=expires_at - timedelta(microseconds=1)) is not None
    assert cache.find(made.secret, now=expires_at) is None
    with pytest.raises(BadKey):
        authenticate(tx, made.secret, now=expires_at, cache=cache)


def test_revoking_twice_keeps_the_first_time_and_tells_once(tx: Tx, now: datetime) -> None:
    made = make(tx, now)
    revoke(tx, made.api_key.api_key_id, now=now)
    again = revoke(tx, made.api_key.api_key_id, now=now + timedelta(days=1))
    assert again.revoked_at == now
    assert fact_types(tx) == ["api_key.created", "api_key.revoked"]


def test_revoking_a_key_that_is_not_there_is_said(tx: Tx, now: datetime) -> None:
    with pytest.raises(KeyNotFound):
        revoke(tx, uuid4(), now=now)
    assert fact_types(tx) == []


@pytest.mark.parametrize(
    "values",
    [
        {"name": ""},
        {"name": "a\x00b"},
        {"name": "x" * 201},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"expires_at": datetime(2025, 1, 15, 12, tzinfo=None)},  # noqa: DTZ001 - the point
    ],
)
def test_a_wrong_value_makes_no_key(tx: Tx, now: datetime, values: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        make(tx, now, **values)
    assert page(tx) == []
    assert fact_types(tx) == []


def test_a_page_goes_on_where_the_last_one_ended_and_can_be_one_customers(
    tx: Tx, now: datetime
) -> None:
    mine = UUID(int=7)
    ids = [
        make(tx, now + timedelta(seconds=place), customer_id=mine if place % 2 else None)
        for place in range(5)
    ]
    first = page(tx, size_max=3)
    rest = page(tx, after=first[-1].api_key_id, size_max=3)
    assert [key.api_key_id for key in first + rest] == [key.api_key.api_key_id for key in ids]
    assert len(page(tx, customer_id=mine)) == 2
