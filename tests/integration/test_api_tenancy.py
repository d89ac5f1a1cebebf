"""A key that is bound to a customer: everybody else does not exist, in every answer alike."""

from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from convergio.billing import actions as billing
from convergio.identity.model import Scope
from convergio.infra.postgres import Embedded
from tests.fakes.api import Api, event, running

ALL = tuple(scope for scope in Scope if scope is not Scope.ADMIN)


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One product for the module, with two customers, each with an invoice."""
    with running(server, template, tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def names(api: Api) -> tuple[str, str, str]:
    """Two customers on Pro, and the key of the first."""
    mine, customer_id = api.customer("pro")
    other, _ = api.customer("pro")
    for name in (mine, other):
        api.post("/v1/events", event(name, data={"quantity": 3}))
    with_later = api.now + timedelta(hours=2)
    billing.run(
        api.product.database,
        as_of=with_later,
        now=with_later,
        seller=api.product.settings.seller,
        keyring=api.product.keyring,
        grace=timedelta(hours=1),
    )
    return mine, other, api.key(*ALL, customer_id=customer_id)


def same(found: httpx.Response, unknown: httpx.Response) -> None:
    """The answer about somebody else's is, to the letter, the answer about nobody's."""
    assert found.status_code == unknown.status_code == 404, (found.text, unknown.text)
    assert found.content == unknown.content


def test_own_things_are_there(api: Api, names: tuple[str, str, str]) -> None:
    mine, _, key = names
    assert api.get(f"/v1/customers/{mine}", key=key).json()["key"] == mine
    quota = api.get(f"/v1/quota?customer={mine}&meter=questions", key=key).json()
    assert int(quota["used"]) >= 3
    assert api.post("/v1/events", event(mine), key=key).status_code == 202
    ask = {"customer": mine, "meter": "questions"}
    assert api.post("/v1/authorize", ask, key=key).json()["allowed"] is True


@pytest.mark.parametrize(
    "path",
    [
        "/v1/customers/{}",
        "/v1/customers/{}/location-evidence",
        "/v1/quota?customer={}&meter=questions",
        "/v1/quota?customer={}&meter=nope",
        "/v1/usage?customer={}&meter=questions",
        "/v1/invoices?customer={}",
    ],
)
def test_ten_01_reading_another_customer_is_reading_nobody(
    api: Api, names: tuple[str, str, str], path: str
) -> None:
    _, other, key = names
    same(api.get(path.format(other), key=key), api.get(path.format("nobody"), key=key))


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/authorize", {"meter": "questions"}),
        ("/v1/authorize", {"meter": "nope"}),
        ("/v1/subscriptions", {"plan": "pro"}),
        ("/v1/subscriptions/cancel", {}),
        ("/v1/reservations/rsv_00000000000000000000000001/commit", {}),
        ("/v1/reservations/rsv_00000000000000000000000001/release", {}),
    ],
)
def test_ten_02_writing_to_another_customer_is_writing_to_nobody(
    api: Api, names: tuple[str, str, str], path: str, more: dict[str, str]
) -> None:
    _, other, key = names
    before = [api.count(table) for table in ("reservation", "subscription", "usage_event")]
    same(
        api.post(path, {"customer": other, **more}, key=key),
        api.post(path, {"customer": "nobody", **more}, key=key),
    )
    assert [api.count(t) for t in ("reservation", "subscription", "usage_event")] == before


def test_a_reservation_of_another_customer_cannot_be_settled(
    api: Api, names: tuple[str, str, str]
) -> None:
    mine, other, key = names
    held = api.post("/v1/authorize", {"customer": other, "meter": "questions"}).json()
    path = f"/v1/reservations/{held['reservation']}/commit"
    unknown = "/v1/reservations/rsv_00000000000000000000000001/commit"
    same(
        api.post(path, {"customer": mine}, key=key), api.post(unknown, {"customer": mine}, key=key)
    )
    assert api.post(path, {"customer": other}).json()["state"] == "committed"


def test_events_of_another_customer_are_refused_as_of_nobody(
    api: Api, names: tuple[str, str, str]
) -> None:
    mine, other, key = names
    before = api.count("usage_event")
    batch = [event(other), event("nobody"), event(mine)]
    told = api.post("/v1/events", batch, key=key).json()
    first, second = told["events"]
    assert told["accepted"] == 1
    assert {**first, "index": 0} == {**second, "index": 0}
    assert api.count("usage_event") == before + 1
    one, nobody = (api.post("/v1/events", event(name), key=key) for name in (other, "nobody"))
    assert (one.status_code, one.content) == (422, nobody.content)


def test_ten_03_lists_hold_only_one_s_own(api: Api, names: tuple[str, str, str]) -> None:
    mine, _, key = names
    everything = api.get("/v1/invoices?limit=100").json()["invoices"]
    own = api.get("/v1/invoices?limit=100", key=key).json()["invoices"]
    assert len(own) == 1
    assert len(everything) >= 2
    usage = api.get("/v1/usage?meter=questions", key=key).json()["usage"]
    assert usage == api.get(f"/v1/usage?meter=questions&customer={mine}").json()["usage"]


def test_another_customer_s_invoice_and_pdf_are_not_there(
    api: Api, names: tuple[str, str, str]
) -> None:
    _, _, key = names
    own = {one["number"] for one in api.get("/v1/invoices", key=key).json()["invoices"]}
    every = {one["number"] for one in api.get("/v1/invoices?limit=100").json()["invoices"]}
    foreign = min(every - own)
    for tail in ("", "/pdf"):
        found = api.get(f"/v1/invoices/{foreign}{tail}", key=key)
        same(found, api.get(f"/v1/invoices/CVG-2025-999999{tail}", key=key))
    pdf = api.get(f"/v1/invoices/{own.pop()}/pdf", key=key)
    assert pdf.content.startswith(b"%PDF-")
    assert pdf.headers["content-disposition"].startswith("attachment")


def test_a_customer_s_key_makes_no_customers(api: Api, names: tuple[str, str, str]) -> None:
    _, _, key = names
    before = api.count("customer")
    assert api.post("/v1/customers", {"key": "smuggled"}, key=key).status_code == 403
    assert api.count("customer") == before
