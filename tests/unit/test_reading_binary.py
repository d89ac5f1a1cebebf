"""Binary mode of the CloudEvents HTTP binding: attributes are headers, the body is the data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.kernel.errors import Invalid
from convergio.metering.reading import is_binary, read_binary, read_events

HEADERS = {
    b"ce-specversion": b"1.0", b"ce-id": b"a", b"ce-source": b"s", b"ce-type": b"t",
    b"ce-subject": b"c", b"ce-time": b"2025-01-15T12:00:00Z", b"content-type": b"application/json",
}  # fmt: skip
SAME = (
    b'{"specversion":"1.0","id":"a","source":"s","type":"t","subject":"c",'
    b'"time":"2025-01-15T12:00:00Z","data":{"q":0.10}}'
)


def test_an_event_reads_alike_in_either_mode() -> None:
    assert read_binary(HEADERS, b'{"q":0.10}').events == read_events(SAME).events


@pytest.mark.parametrize(
    ("headers", "binary"),
    [
        (HEADERS, True),
        ({**HEADERS, b"content-type": b"application/cloudevents+json"}, False),
        ({**HEADERS, b"content-type": b"Application/CloudEvents-Batch+JSON; charset=utf-8"}, False),
        ({b"content-type": b"application/json"}, False),
        ({b"ce-specversion": b"1.0"}, True),
    ],
)
def test_the_mode_is_told_by_the_headers(headers: dict[bytes, bytes], *, binary: bool) -> None:
    assert is_binary(headers) is binary


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"), (b" spaced ", "spaced"), (b"a%20b%C3%A9", "a bé"),
        (b'"quoted \\" \\\\ one"', 'quoted " \\ one'), ("é".encode(), "é"), (b"100%", "100%"),
    ],
)  # fmt: skip
def test_header_values_are_unquoted_and_then_decoded(value: bytes, text: str) -> None:
    (event,) = read_binary({**HEADERS, b"ce-id": value}, b"").events
    assert (event.id, event.data) == (text, None)


@pytest.mark.parametrize("body", [b"{", b'{},"subject":"d"', b"{}{}", b"\xff", b"NaN"])
def test_data_that_is_not_one_json_value_is_malformed(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_binary(HEADERS, body)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("value", [b"%ff", b"\xff"])
def test_a_header_that_is_no_text_is_malformed(value: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_binary({**HEADERS, b"ce-id": value}, b"{}")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("media", [b"text/plain", b"application/xml", b"", b"application/octet"])
def test_data_of_another_kind_is_refused(media: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_binary({**HEADERS, b"content-type": media}, b"{}")
    assert caught.value.code == "unsupported_media_type"


def test_nobody_but_the_product_itself_speaks_in_its_name() -> None:
    (verdict,) = read_binary({**HEADERS, b"ce-source": b"convergio:reservation"}, b"{}").verdicts
    assert verdict is not None
    assert verdict.reason == "bad_id"


@given(st.binary(max_size=100), st.binary(max_size=50))
def test_no_body_and_no_header_breaks_the_reader(body: bytes, header: bytes) -> None:
    try:
        reading = read_binary({**HEADERS, b"ce-subject": header}, body)
    except Invalid:
        return
    assert len(reading.verdicts) == 1
