"""Reading a request: one bad event gets its verdict and never sinks its batch."""

from datetime import datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.kernel.errors import Invalid, LimitExceeded
from convergio.metering.model import BATCH_MAX
from convergio.metering.reading import read_events

GOOD = b'{"specversion":"1.0","id":"a","source":"s","type":"t","subject":"c"}'


def refused(body: bytes) -> str:
    with pytest.raises((Invalid, LimitExceeded)) as caught:
        read_events(body)
    return caught.value.code


def test_one_event_and_a_list_of_one_read_alike() -> None:
    single, batch = read_events(GOOD), read_events(b" \n[" + GOOD + b"]")
    assert single.events == batch.events
    assert (single.single, batch.single) == (True, False)


def test_json_decimals_keep_every_digit() -> None:
    body = GOOD[:-1] + b',"data":{"q":0.1000000000000000000000001}}'
    (one,) = read_events(body).events
    assert one.data == {"q": Decimal("0.1000000000000000000000001")}


def test_extension_attributes_are_allowed() -> None:
    assert len(read_events(GOOD[:-1] + b',"traceparent":"x","datacontenttype":"y"}').events) == 1


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (b'{"id":1,"source":"s","type":"t","subject":"c"}', "id"),
        (b'{"source":"s","type":"t","subject":"c"}', None),
        (b"7", None),
        (b"null", None),
        (b"[]", None),
        (GOOD[:-1] + b',"time":1700000000000}', "time"),
        (GOOD[:-1] + b',"time":"2025-01-01T00:00:00"}', "time"),
        (GOOD[:-1] + b',"time":"2025-13-01T00:00:00Z"}', "time"),
        (GOOD[:-1] + b',"time":"yesterday"}', "time"),
        (GOOD[:-1] + b',"data":[]}', "data"),
        (GOOD[:-1] + b',"data":"x"}', "data"),
    ],
)
def test_one_bad_event_is_refused_alone_naming_its_field(bad: bytes, field: str | None) -> None:
    reading = read_events(b"[" + GOOD + b"," + bad + b"," + GOOD + b"]")
    assert reading.places == [0, 2]
    verdict = reading.verdicts[1]
    assert verdict is not None
    assert (verdict.status, verdict.reason, verdict.field) == ("rejected", "bad_event", field)
    assert verdict.detail
    assert "$" not in verdict.detail
    alone = read_events(bad) if bad[:1] != b"[" else read_events(b"[" + bad + b"]")
    assert alone.verdicts == [verdict]


@pytest.mark.parametrize("value", [b'"eyJxdWFudGl0eSI6Mn0="', b"null", b"7"])
def test_data_in_base64_is_refused_and_never_counted_as_no_data(value: bytes) -> None:
    bad = GOOD[:-1] + b',"data_base64":' + value + b"}"
    reading = read_events(b"[" + GOOD + b"," + bad + b"]")
    verdict = reading.verdicts[1]
    assert reading.places == [0]
    assert verdict is not None
    assert (verdict.reason, verdict.field) == ("bad_event", "data_base64")
    assert read_events(bad).verdicts == [verdict]


def test_a_property_may_be_called_as_an_attribute_is() -> None:
    (one,) = read_events(GOOD[:-1] + b',"data":{"data_base64":"x"}}').events
    assert one.data == {"data_base64": "x"}


@pytest.mark.parametrize("text", [rb"\ud800", rb"\udfff", rb"\ud800\ud800"])
def test_qty_15_a_lone_surrogate_is_no_json(text: bytes) -> None:
    assert refused(GOOD.replace(b'"a"', b'"' + text + b'"')) == "malformed"
    assert refused(b"[" + GOOD[:-1] + b',"data":{"model":"' + text + b'"}}]') == "malformed"


def test_bytes_that_are_no_text_sink_at_most_their_own_event() -> None:
    bad = GOOD[:-1] + b',"data":{"model":"\xff"}}'
    reading = read_events(b"[" + GOOD + b"," + bad + b"]")
    assert reading.places == [0]
    verdict = reading.verdicts[1]
    assert verdict is not None
    assert (verdict.status, verdict.reason) == ("rejected", "malformed")


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"[", b"[,]", b"[" + GOOD, GOOD + b"x", b"\x00", b"\xef\xbb\xbf" + GOOD,
        b"\xff\xfe", b"NaN",
        GOOD[:-1] + b',"data":{"q":NaN}}', GOOD[:-1] + b',"data":{"q":Infinity}}',
        b"[" * 100_000, b'{"a":' * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    assert refused(body) == "malformed"


def test_qty_19_nesting_without_end_is_refused_quickly() -> None:
    deep = b'{"q":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    assert refused(GOOD[:-1] + b',"data":' + deep + b"}") == "malformed"


def test_ten_thousand_properties_are_read() -> None:
    data = msgspec.json.encode({f"p{number}": number for number in range(10_000)})
    assert len(read_events(GOOD[:-1] + b',"data":' + data + b"}").events) == 1


def test_an_empty_batch_and_a_too_large_one_are_refused() -> None:
    assert refused(b"[]") == "empty_batch"
    full = b"[" + b",".join([GOOD] * BATCH_MAX) + b"]"
    assert len(read_events(full).events) == BATCH_MAX
    assert refused(full[:-1] + b"," + GOOD + b"]") == "batch_too_large"
    assert refused(full[:-1] + b",7]") == "batch_too_large"


def test_ten_01_events_of_other_customers_read_as_if_those_did_not_exist() -> None:
    other = GOOD.replace(b'"c"', b'"d"')
    reading = read_events(b"[" + other + b"," + GOOD + b"," + other + b"]")
    reading.keep_only("c")
    assert reading.places == [1]
    assert [one.subject for one in reading.events] == ["c"]
    assert [one.reason if one else None for one in reading.verdicts] == [
        "unknown_customer", None, "unknown_customer",
    ]  # fmt: skip


def test_nobody_but_the_product_itself_may_speak_in_its_name() -> None:
    """A committed reservation's event has a source of its own; a forged one would hide usage."""
    forged = GOOD.replace(b'"s"', b'"convergio:reservation"')
    reading = read_events(b"[" + forged + b"," + GOOD + b"]")
    assert reading.places == [1]
    verdict = reading.verdicts[0]
    assert verdict is not None
    assert (verdict.status, verdict.reason, verdict.field) == ("rejected", "bad_id", "source")
    assert read_events(forged).verdicts[0] == verdict


@given(st.binary(max_size=200))
def test_no_body_whatever_breaks_the_reader(body: bytes) -> None:
    try:
        reading = read_events(body)
    except Invalid:
        return
    assert len(reading.verdicts) >= 1


@given(st.lists(st.sampled_from([GOOD, b"7", b"{}", GOOD[:-1] + b',"time":0}']), min_size=1))
def test_every_event_of_a_request_has_a_place_or_a_verdict(parts: list[bytes]) -> None:
    reading = read_events(b"[" + b",".join(parts) + b"]")
    assert len(reading.verdicts) == len(parts)
    assert len(reading.events) == len(reading.places)
    judged = {place for place, verdict in enumerate(reading.verdicts) if verdict is not None}
    assert judged | set(reading.places) == set(range(len(parts)))
    assert not judged & set(reading.places)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024-11-30T23:59:59.9999999Z", "2024-11-30T23:59:59.999999+00:00"),
        ("2024-11-30T23:59:59.9999999999999Z", "2024-11-30T23:59:59.999999+00:00"),
        ("2024-11-30T23:59:59.999999\\u0039Z", "2024-11-30T23:59:59.999999+00:00"),
        ("2024-11-30T23:59:59.1234567+01:00", "2024-11-30T22:59:59.123456+00:00"),
        ("2024-11-30T23:59:59.123456Z", "2024-11-30T23:59:59.123456+00:00"),
        ("2024-11-30T23:59:59.5Z", "2024-11-30T23:59:59.500000+00:00"),
    ],
)
def test_a_fraction_finer_than_microseconds_is_cut_and_never_rounded_up(
    written: str, read: str
) -> None:
    body = GOOD[:-1] + f',"time":"{written}"}}'.encode()
    with_bad = b"[" + body + b"," + GOOD[:-1] + b',"time":1}]'
    for found in (read_events(body), read_events(b"[" + body + b"]"), read_events(with_bad)):
        assert found.events[0].time == datetime.fromisoformat(read)
