"""An event's key: one for ever, 16 bytes, on the hot edge of the index where its id has a time."""

import uuid
from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convergio.infra.ids import new_id
from convergio.metering.rules import event_key
from tests.fakes.instants import instants

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ULIDS = st.tuples(st.sampled_from("01234567"), st.text(CROCKFORD, min_size=25, max_size=25)).map(
    "".join
)
PRINTABLE = st.text(min_size=1, max_size=60).filter(str.isprintable)
SHAPED = st.text("0123456789abcdefABCDEF -_iloIu\u0663", min_size=36, max_size=36).map(
    lambda text: f"{text[:8]}-{text[9:13]}-7{text[15:]}"
)


@given(st.binary(max_size=60), PRINTABLE | SHAPED | ULIDS)
@example(b"s", "01  2345-6789-7abc-8def-0123456789ab")
@example(b"s", "        -    -7                     ")
@example(b"s", "7" * 26)
@example(b"s", "0" + "_1" * 12 + "2")
@example(b"s", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ")
@example(b"s", "7vvvvvvvvvvvvvvvvvvvvvvvvv")
def test_a_key_has_16_bytes_and_is_the_same_every_time(source: bytes, event_id: str) -> None:
    key = event_key(source, event_id)
    assert len(key) == 16
    assert event_key(source, event_id) == key


@given(st.lists(st.tuples(PRINTABLE, PRINTABLE | SHAPED | ULIDS), unique=True, max_size=50))
def test_different_events_have_different_keys(pairs: list[tuple[str, str]]) -> None:
    assert len({event_key(source.encode(), event_id) for source, event_id in pairs}) == len(pairs)


def test_the_border_between_source_and_id_counts() -> None:
    assert event_key(b"ab", "c") != event_key(b"a", "bc")


@given(instants(1970, 9000))
def test_a_uuid_of_version_7_leads_with_its_48_bits_of_time(moment: datetime) -> None:
    made = new_id(moment)
    assert event_key(b"s", str(made))[:6] == made.bytes[:6]
    assert event_key(b"s", str(made).upper())[:6] == made.bytes[:6]


@given(ULIDS)
def test_a_ulid_leads_with_its_48_bits_of_time(ulid: str) -> None:
    time = 0
    for letter in ulid[:10]:
        time = time << 5 | CROCKFORD.index(letter)
    assert event_key(b"s", ulid)[:6] == time.to_bytes(6, "big")
    assert event_key(b"s", ulid.lower())[:6] == time.to_bytes(6, "big")


@given(st.uuids(version=4))
def test_the_order_of_other_ids_says_nothing(other: uuid.UUID) -> None:
    assert event_key(b"s", str(other))[:6] != other.bytes[:6]


@pytest.mark.parametrize("event_id", [str(uuid.UUID(int=7 << 76 | 0b10 << 62)), "0" * 26])
def test_two_sources_may_use_the_same_id(event_id: str) -> None:
    assert event_key(b"one", event_id) != event_key(b"two", event_id)
