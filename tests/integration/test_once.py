"""What moves money is done once: Idempotency-Key on every route that asks for it."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from convergio.api.app import inside
from convergio.api.once import REPLAYED, is_once
from convergio.api.security import SCOPE_KEY
from convergio.identity.model import Scope
from convergio.infra import answers
from convergio.infra.answers import Answer, KeyInFlight
from convergio.infra.clock import VirtualClock
from convergio.infra.postgres import Embedded
from convergio.kernel.errors import Invalid
from convergio.worker import chores
from tests.fakes.api import Api, running

# what changes something and asks for no key, and why a retry does no harm
UNKEYED = {
    "POST /v1/events": "each event has an id of its own",
    "POST /v1/authorize": "it promises quota and no money; an ask may have an id of its own",
    "POST /v1/catalog/plan": "nothing is kept",
    "POST /v1/catalog/apply": "the same file again changes nothing",
    "POST /v1/customers": "the customer's own key is refused the second time; no money moves",
    "PATCH /v1/customers/{customer}": "the fields are what they were set to; no money moves",
    "POST /v1/customers/{customer}/tax-id-check": "the finding is the same; no money moves",
    "POST /v1/customers/{customer}/location-evidence": "the last of a kind counts; no money moves",
    "POST /v1/reservations/{reservation}/commit": "twice is once, and another quantity a conflict",
    "POST /v1/reservations/{reservation}/release": "twice is once",
    "POST /v1/leases": "it promises quota and no money; a lease may have an id of its own",
    "POST /v1/leases/{lease}/renew": "each report has its number",
    "POST /v1/leases/{lease}/settle": "twice is once, and another quantity a conflict",
    "POST /v1/leases/{lease}/declare-lost": "twice is once",
}


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, template, tmp_path_factory.mktemp("home")) as opened:
        yield opened


def sent(
    api: Api,
    path: str,
    body: Any,  # noqa: ANN401 - any JSON
    once: str | None,
    **more: Any,  # noqa: ANN401 - as post
) -> httpx.Response:
    return api.post(path, body, headers={"idempotency-key": once}, **more)


def refused(found: httpx.Response, status: int, code: str) -> None:
    assert found.status_code == status, found.text
    told = found.json()
    assert (told["code"], told["field"]) == (code, "Idempotency-Key")


def changing(api: Api) -> Iterator[tuple[str, HTTPRouteHandler]]:
    """Yield every route that may change something, with its method and path."""
    for route in inside(api.product).routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            assert isinstance(handler, HTTPRouteHandler)
            for method in sorted(handler.http_methods - {"GET", "HEAD", "OPTIONS"}):
                yield f"{method} {route.path_format}", handler


def test_every_route_that_changes_something_asks_for_a_key_or_says_why_not(api: Api) -> None:
    asking = {name for name, handler in changing(api) if is_once(handler)}
    every = {name for name, _ in changing(api)}
    looking = {name for name in every if name.endswith("/preview")}  # nothing of it is kept
    assert looking
    assert every - asking - looking == UNKEYED.keys()
    assert len(asking) >= 20


def test_a_route_whose_scope_is_of_money_has_no_excuse(api: Api) -> None:
    money = {Scope.SUBSCRIPTIONS_WRITE, Scope.BILLING_RUN, Scope.PAYMENTS_WRITE}
    for name, handler in changing(api):
        assert is_once(handler) or handler.opt[SCOPE_KEY] not in money, name


def test_idem_01_without_a_key_nothing_is_done_and_the_header_is_named(api: Api) -> None:
    number = api.billed()
    before = api.count("credit_note")
    body = {"reason": "delay", "amount": "1.00"}
    refused(sent(api, f"/v1/invoices/{number}/credit", body, None), 400, "idempotency_key_missing")
    assert api.count("credit_note") == before


def test_idem_02_the_same_request_gets_the_same_answer_byte_for_byte(api: Api) -> None:
    number, key = api.billed(), uuid4().hex
    path, body = f"/v1/invoices/{number}/credit", {"reason": "delay", "amount": "1.00"}
    before = api.count("credit_note")
    first, again = sent(api, path, body, key), sent(api, path, body, f'"{key}"')
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert (REPLAYED in first.headers, again.headers[REPLAYED]) == (False, "true")
    assert api.count("credit_note") == before + 1


def test_idem_03_another_request_under_the_key_is_refused(api: Api) -> None:
    number, other, key = api.billed(), api.billed(), uuid4().hex
    path, body = f"/v1/invoices/{number}/credit", {"reason": "delay", "amount": "1.00"}
    assert sent(api, path, body, key).status_code == 201
    before = api.count("credit_note")
    for where, what in (
        (path, body | {"amount": "1.01"}),
        (path, {"reason": "delay"}),
        (f"/v1/invoices/{other}/credit", body),
    ):
        refused(sent(api, where, what, key), 422, "idempotency_key_reused")
    assert api.count("credit_note") == before


def test_idem_04_of_two_at_once_one_is_done_and_the_other_told_to_wait(api: Api) -> None:
    database, key, wanted = api.product.database, uuid4().hex, b"f" * 32
    found: list[str] = []
    with database.transaction() as tx:
        assert answers.begin(tx, answers.SELLER, key, wanted) is None

        def other() -> None:
            try:
                with database.transaction() as second:
                    answers.begin(second, answers.SELLER, key, wanted)
            except KeyInFlight as error:
                found.append(error.code)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(timeout=30)
        name, _ = api.customer()
        body = {"customer": name, "plan": "pro"}
        refused(sent(api, "/v1/subscriptions", body, key), 409, "request_in_flight")
    assert found == ["request_in_flight"]
    assert sent(api, "/v1/subscriptions", body, key).status_code == 201


def test_idem_05_one_customer_s_key_is_another_s_own(api: Api) -> None:
    (mine, my_id), (theirs, their_id), key = api.customer(), api.customer(), uuid4().hex
    secrets = [api.key(Scope.SUBSCRIPTIONS_WRITE, customer_id=one) for one in (my_id, their_id)]
    told = [
        sent(api, "/v1/subscriptions", {"customer": name, "plan": "pro"}, key, key=secret)
        for name, secret in zip((mine, theirs), secrets, strict=True)
    ]
    assert [one.status_code for one in told] == [201, 201]
    assert told[0].json()["id"] != told[1].json()["id"]
    name, _ = api.customer()
    assert sent(api, "/v1/subscriptions", {"customer": name, "plan": "pro"}, key).is_success


def test_idem_07_order_and_white_space_of_a_body_do_not_make_it_another(api: Api) -> None:
    name, _ = api.customer()
    key, body = uuid4().hex, {"customer": name, "plan": "pro", "seats": 1}
    texts = [
        json.dumps(body),
        json.dumps(dict(reversed(body.items())), indent=3),
        json.dumps({k: body[k] for k in ("customer", "plan")}),  # the same, its default left out
    ]
    told = [sent(api, "/v1/subscriptions", text.encode(), key) for text in texts]
    assert {one.status_code for one in told} == {201}
    assert len({one.content for one in told}) == 1


@pytest.mark.parametrize(
    "key",
    ["", " ", "x" * 256, "x" * 10_000, "a b", "a\x00b", "a\x1bb", "caf\xe9", '""', '"a', 'a"b"c d'],
)
def test_idem_08_a_key_that_is_none_is_refused(api: Api, key: str) -> None:
    name, _ = api.customer()
    body = {"customer": name, "plan": "pro"}
    found = api.send(
        "POST", "/v1/subscriptions", body, headers={"idempotency-key": key.encode("latin-1")}
    )
    refused(found, 400, "bad_idempotency_key")
    assert api.get(f"/v1/subscriptions?customer={name}").json()["subscriptions"] == []


def test_idem_10_a_refused_request_leaves_its_key_to_the_mended_one(api: Api) -> None:
    name, _ = api.customer()
    key = uuid4().hex
    wrong = sent(api, "/v1/subscriptions", {"customer": name, "plan": "nope"}, key)
    assert wrong.status_code == 404
    right = sent(api, "/v1/subscriptions", {"customer": name, "plan": "pro"}, key)
    assert right.status_code == 201
    refused(
        sent(api, "/v1/subscriptions", {"customer": name, "plan": "nope"}, key),
        422, "idempotency_key_reused",
    )  # fmt: skip


def test_a_crash_between_the_work_and_the_answer_leaves_neither(api: Api) -> None:
    """The answer is a row of the work's own transaction: one that dies takes both along."""
    number, key = api.billed(), uuid4().hex
    body = {"reason": "delay", "amount": "1.00"}
    before = api.count("credit_note"), api.count("request_answer")
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:

        def killed(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        patched.setattr("convergio.api.once.answers.keep", killed)
        assert sent(api, f"/v1/invoices/{number}/credit", body, key).status_code == 500
    assert (api.count("credit_note"), api.count("request_answer")) == before
    assert sent(api, f"/v1/invoices/{number}/credit", body, key).status_code == 201
    assert (api.count("credit_note"), api.count("request_answer")) == (before[0] + 1, before[1] + 1)


def test_an_answer_is_kept_for_two_days_and_then_swept(
    server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running(server, template, tmp_path_factory.mktemp("home")) as own:
        clock = own.product.clock
        assert isinstance(clock, VirtualClock)
        name, _ = own.customer()
        body = {"customer": name, "plan": "pro"}
        assert sent(own, "/v1/subscriptions", body, "k1").status_code == 201
        chore = chores(own.product)["convergio.forget_answers"]
        clock.advance_to(own.now + timedelta(hours=48))
        chore.work()
        assert own.count("request_answer") == 1
        clock.advance_to(own.now + timedelta(seconds=1))
        chore.work()
        assert own.count("request_answer") == 0


def test_a_key_in_the_table_that_the_reader_would_refuse_cannot_be() -> None:
    for bad in ([], ["a", "b"], ["a\n"]):
        with pytest.raises(Invalid):
            answers.read_key(bad)
    assert answers.read_key(['"a-b"']) == answers.read_key(["a-b"]) == "a-b"
    assert Answer(b"", 200, b"").status == 200
