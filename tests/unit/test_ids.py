"""Ids: a UUIDv7 that sorts by time inside, a TypeID that names its kind outside."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.infra.ids import new_id, new_ids, parse_typeid, typeid
from convergio.kernel.errors import Invalid
from tests.fakes.instants import instants

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INSTANTS = instants(1970, 9000)
UUIDS = st.integers(0, 2**128 - 1).map(lambda number: UUID(int=number))


@given(INSTANTS)
def test_a_new_id_is_a_uuid_of_version_7_with_the_whole_milliseconds_of_its_time(
    moment: datetime,
) -> None:
    made = new_id(moment)
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == (moment - EPOCH) // timedelta(milliseconds=1)


def test_ids_of_one_instant_differ(now: datetime) -> None:
    assert len({new_id(now) for _ in range(1_000)}) == 1_000


@given(INSTANTS, INSTANTS)
def test_later_ids_sort_after_earlier_ones_in_both_forms(one: datetime, other: datetime) -> None:
    early, late = sorted((one, other))
    if late - early < timedelta(milliseconds=2):
        return
    assert new_id(early) < new_id(late)
    assert typeid("cus", new_id(early)) < typeid("cus", new_id(late))


@given(UUIDS)
def test_a_typeid_reads_back_as_the_same_id(value: UUID) -> None:
    text = typeid("inv", value)
    assert len(text) == len("inv_") + 26
    assert text[4] in "01234567"
    assert parse_typeid("inv", text) == value


def test_the_extremes_and_the_specification_s_own_example_are_written_as_it_says() -> None:
    # The valid vectors of the TypeID specification 0.3: nil, one, ten, and the greatest.
    assert typeid("p", UUID(int=0)) == "p_00000000000000000000000000"
    assert typeid("p", UUID(int=1)) == "p_00000000000000000000000001"
    assert typeid("p", UUID(int=32)) == "p_00000000000000000000000010"
    assert typeid("p", UUID(int=2**128 - 1)) == "p_7zzzzzzzzzzzzzzzzzzzzzzzzz"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cus",
        "cus_",
        "inv_00000000000000000000000000",
        "CUS_00000000000000000000000000",
        "cus_0000000000000000000000000",
        "cus_000000000000000000000000000",
        "cus_8zzzzzzzzzzzzzzzzzzzzzzzzz",
        "cus_0000000000000000000000000l",
        "cus_0000000000000000000000000A",
        "cus_0000000000000000000000000\n",
        "cus_\u0660000000000000000000000000\u0660",
        "cus_\x00",
    ],
)
def test_what_is_not_an_id_of_the_prefix_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_typeid("cus", text)
    assert caught.value.code == "bad_id"


def test_ids_of_one_millisecond_are_in_the_order_of_their_making(now: datetime) -> None:
    made = [new_id(now) for _ in range(1_000)]
    assert made == sorted(made)
    assert new_id(now + timedelta(milliseconds=1)) > made[-1]


def test_ids_of_a_bulk_of_rows_are_in_order_too(now: datetime) -> None:
    found = new_ids(now, 1_000)
    assert found == sorted(found)
    assert len(set(found)) == 1_000
    assert {one.version for one in found} == {7}
