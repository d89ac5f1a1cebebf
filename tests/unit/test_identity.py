"""The form of an API key, what it may do, and how long it is remembered."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from convergio.identity import rules
from convergio.identity.actions import KeyCache
from convergio.identity.errors import BadKey, ScopeMissing
from convergio.identity.model import ApiKey, NewApiKey, Principal, Scope
from convergio.kernel.errors import Invalid

RANDOM = "0123456789abcdefghijABCDEFGHIJ"


def api_key(now: datetime) -> ApiKey:
    return ApiKey(UUID(int=1), "test", rules.PREFIX, "wxyz", ["usage:write"], None, now, None, None)


def test_a_key_has_the_documented_form() -> None:
    key = rules.write_key(RANDOM)
    assert key.startswith("cvg_live_")
    assert len(key) == len("cvg_live_") + 36
    assert len(rules.hash_key(key)) == 32


def test_the_checksum_is_the_crc32_in_base_62() -> None:
    digits = {letter: place for place, letter in enumerate(rules.ALPHABET)}
    number = 0
    for letter in rules.write_key(RANDOM)[-6:]:
        number = number * 62 + digits[letter]
    assert number == 0xD419C134  # as in the trailer that gzip writes for the same text


def test_key_03_every_single_changed_character_is_noticed_offline() -> None:
    key = rules.write_key(RANDOM)
    for place, letter in enumerate(key):
        other = "A" if letter != "A" else "B"
        with pytest.raises(BadKey):
            rules.hash_key(key[:place] + other + key[place + 1 :])


@pytest.mark.parametrize(
    "presented",
    [
        "", "cvg_live_", RANDOM, f"cvg_live_{RANDOM}", "x" * 10_000, "cvg_live_" + "é" * 36,
        "cvg_live_" + "\x00" * 36, "cvg_live_" + "\ud800" * 36, "cvg_live_" + "٣" * 36,
    ],
)  # fmt: skip
def test_garbage_is_a_bad_key_and_no_crash(presented: str) -> None:
    with pytest.raises(BadKey):
        rules.hash_key(presented)


def test_a_key_with_space_or_newline_around_it_is_bad() -> None:
    key = rules.write_key(RANDOM)
    for presented in (f" {key}", f"{key}\n", f"{key} "):
        with pytest.raises(BadKey):
            rules.hash_key(presented)


def test_key_04_a_test_mode_key_is_not_known_here() -> None:
    live = rules.write_key(RANDOM)
    with pytest.raises(BadKey):
        rules.hash_key(live.replace("_live_", "_test_"))


def test_key_08_an_error_a_mask_and_a_repr_never_show_the_key(now: datetime) -> None:
    secret = rules.write_key(RANDOM)
    known = replace(api_key(now), last_four=secret[-4:])
    assert rules.masked(known) == f"cvg_live_***{secret[-4:]}"
    assert RANDOM not in repr(NewApiKey(known, secret))
    with pytest.raises(BadKey) as caught:
        rules.hash_key(secret[:-1] + "!")
    assert RANDOM not in repr(caught.value) + str(caught.value)


def test_unknown_revoked_and_expired_keys_get_one_and_the_same_answer(now: datetime) -> None:
    good = api_key(now)
    dead = (None, replace(good, revoked_at=now), replace(good, expires_at=now))
    answers = set()
    for key in dead:
        with pytest.raises(BadKey) as caught:
            rules.principal(key, now=now)
        answers.add((caught.value.code, caught.value.detail))
    assert len(answers) == 1
    later = replace(good, expires_at=now + timedelta(microseconds=1))
    assert rules.principal(later, now=now).api_key_id == good.api_key_id


def test_ten_11_a_scope_opens_its_own_door_only(now: datetime) -> None:
    who = rules.principal(api_key(now), now=now)
    rules.require_scope(who, Scope.USAGE_WRITE)
    for scope in set(Scope) - {Scope.USAGE_WRITE}:
        with pytest.raises(ScopeMissing, match=scope.value):
            rules.require_scope(who, scope)


def test_admin_holds_every_scope_and_an_unknown_scope_none(now: datetime) -> None:
    admin = rules.principal(replace(api_key(now), scopes=["admin"]), now=now)
    for scope in Scope:
        rules.require_scope(admin, scope)
    strange = rules.principal(replace(api_key(now), scopes=["everything"]), now=now)
    assert strange.scopes == frozenset()


@pytest.mark.parametrize("names", [[], ["usage:write", "root"], ["USAGE:WRITE"], [""]])
def test_a_scope_that_does_not_exist_is_refused(names: list[str]) -> None:
    with pytest.raises(Invalid, match="usage:write"):
        rules.read_scopes(names)


def test_a_key_cannot_be_born_dead_or_without_a_zone(now: datetime) -> None:
    for expires_at in (now, now - timedelta(days=1), now.replace(tzinfo=None)):
        with pytest.raises(Invalid):
            rules.check_expiry(expires_at, now=now)
    rules.check_expiry(None, now=now)


def test_the_cache_remembers_for_its_time_only_and_never_backwards(now: datetime) -> None:
    cache, key = KeyCache(), rules.write_key(RANDOM)
    who = Principal(UUID(int=1), frozenset(), None)
    until = now + timedelta(seconds=30)
    assert cache.find(key, now=now) is None
    cache.keep(rules.hash_key(key), who, now=now, until=until)
    assert cache.find(key, now=now) == who
    assert cache.find(key, now=until - timedelta(microseconds=1)) == who
    assert cache.find(key, now=until) is None
    assert cache.find(key, now=now - timedelta(seconds=1)) is None


def test_the_cache_is_bounded_and_forgets_the_key_used_longest_ago(now: datetime) -> None:
    cache = KeyCache(size_max=2)
    keys = [rules.write_key(str(place) * 30) for place in range(3)]
    who = Principal(UUID(int=1), frozenset(), None)
    for key in keys[:2]:
        cache.keep(rules.hash_key(key), who, now=now, until=now + timedelta(seconds=30))
    cache.find(keys[0], now=now)
    cache.keep(rules.hash_key(keys[2]), who, now=now, until=now + timedelta(seconds=30))
    assert [cache.find(key, now=now) for key in keys] == [who, None, who]
