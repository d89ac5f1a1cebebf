"""Other people's clients, unchanged, against a real server: OpenMeter's and CloudEvents' own."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cloudevents.conversion import to_binary, to_json, to_structured
from cloudevents.http import CloudEvent
from corehttp.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError
from openmeter import Client
from openmeter.aio import Client as AsyncClient
from openmeter.models import Event

from tests.e2e.conftest import Served


def cloud_event(customer: str, quantity: str = "1", **attributes: str) -> CloudEvent:
    """Return an event as the CloudEvents SDK makes it; it gives the id and the time itself."""
    return CloudEvent(
        {"type": "ai.request", "source": "sdk", "subject": customer, **attributes},
        {"quantity": quantity},
    )


def metered(customer: str, quantity: str = "1", name: str | None = None) -> Event:
    """Return an event as OpenMeter's client makes it."""
    return Event(
        id=name or str(uuid4()),
        source="openmeter",
        specversion="1.0",
        type="ai.request",
        subject=customer,
        time=datetime.now(UTC),  # noqa: TID251 - the server reads the real clock too
        data={"quantity": quantity},
    )


def post(served: Served, headers: dict[str, str], body: bytes) -> httpx.Response:
    """Send what the CloudEvents SDK made, with nothing but the key added."""
    allowed = {"authorization": f"Bearer {served.key}"}
    return httpx.post(f"{served.url}/v1/events", headers=headers | allowed, content=body)


def test_openmeters_client_sends_one_event_and_a_batch(served: Served) -> None:
    customer = served.customer()
    events = [metered(customer, "0.5") for _ in range(20)]
    with Client(endpoint=served.url, token=served.key) as client:
        client.events.ingest_event(metered(customer, "2"))
        client.events.ingest_events(events)
        client.events.ingest_events(events)
        client.events.ingest_events_json(events)
    assert served.used(customer) == 12


def test_openmeters_async_client_sends_too(served: Served) -> None:
    customer = served.customer()

    async def story() -> None:
        async with AsyncClient(endpoint=served.url, token=served.key) as client:
            await client.events.ingest_event(metered(customer))
            await client.events.ingest_events([metered(customer), metered(customer)])

    asyncio.run(story())
    assert served.used(customer) == 3


def test_openmeters_client_is_told_of_what_was_not_counted(served: Served) -> None:
    customer = served.customer()
    known = metered(customer, "1", name="one")
    with Client(endpoint=served.url, token=served.key) as client:
        client.events.ingest_event(known)
        with pytest.raises(ResourceExistsError):
            client.events.ingest_event(metered(customer, "2", name="one"))
        with pytest.raises(HttpResponseError) as caught:
            client.events.ingest_events([metered(customer), metered("nobody-has-this-key")])
        answer: Any = caught.value.response
        assert (answer.status_code, answer.json()["rejected"]) == (422, 1)
    assert served.used(customer) == 2
    with (
        Client(endpoint=served.url, token="cvg_live_wrong") as client,
        pytest.raises(ClientAuthenticationError),
    ):
        client.events.ingest_event(known)


@pytest.mark.parametrize("mode", [to_structured, to_binary])
def test_the_cloudevents_sdk_sends_one_event(
    served: Served,
    mode: Any,  # noqa: ANN401 - two untyped functions
) -> None:
    customer = served.customer()
    headers, body = mode(cloud_event(customer, "2.5"))
    first, second = post(served, headers, body), post(served, headers, body)
    assert (first.status_code, second.status_code) == (202, 202)
    assert (first.json()["accepted"], second.json()["duplicate"]) == (1, 1)
    assert served.used(customer) == Decimal("2.5")


def test_one_event_is_the_same_event_in_either_mode(served: Served) -> None:
    customer = served.customer()
    event = cloud_event(customer)
    assert post(served, *to_structured(event)).json()["accepted"] == 1
    assert post(served, *to_binary(event)).json()["duplicate"] == 1


def test_the_cloudevents_sdk_sends_a_batch(served: Served) -> None:
    customer = served.customer()
    events = [json.loads(to_json(cloud_event(customer))) for _ in range(10)]
    headers = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}
    told = post(served, headers, json.dumps(events).encode())
    assert (told.status_code, told.json()["accepted"]) == (202, 10)
    assert served.used(customer) == 10


def test_binary_mode_reads_extensions_encodings_and_no_data(served: Served) -> None:
    customer = served.customer()
    headers, body = to_binary(
        cloud_event(customer, datacontenttype="application/json; charset=utf-8", traceparent="x")
    )
    assert post(served, headers, body).status_code == 202
    bare = {
        "ce-specversion": "1.0", "ce-id": "a%20%C3%A9%22b", "ce-source": '"quoted \\" source"',
        "ce-type": "ai.request", "ce-subject": customer,
    }  # fmt: skip
    assert post(served, bare, b"").status_code == 202
    assert served.used(customer) == 2


@pytest.mark.parametrize(
    ("changed", "body", "status"),
    [
        ({"ce-subject": None}, b"{}", 422),
        ({"ce-time": "yesterday"}, b"{}", 422),
        ({"ce-id": "%ff"}, b"{}", 400),
        ({}, b'{},"subject":"other"', 400),
        ({}, b"[1]", 422),
        ({"content-type": "text/xml"}, b"<a/>", 415),
    ],
)
def test_binary_mode_refuses_what_is_no_event(
    served: Served, changed: dict[str, str | None], body: bytes, status: int
) -> None:
    headers = {
        "ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "ai.request",
        "ce-subject": "nobody-has-this-key", "content-type": "application/json", **changed,
    }  # fmt: skip
    told = post(served, {name: value for name, value in headers.items() if value}, body)
    assert told.status_code == status, told.text
    assert told.headers["content-type"] == "application/problem+json"
