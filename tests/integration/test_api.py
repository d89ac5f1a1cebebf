"""The HTTP edge: who may, what is answered, and what never leaves the house."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from convergio.api.app import inside
from convergio.api.hot import BODY_SIZE_MAX
from convergio.api.security import PUBLIC, SCOPE_KEY
from convergio.identity import actions as identity
from convergio.identity.model import Scope
from convergio.infra.clock import VirtualClock
from convergio.infra.postgres import Embedded
from convergio.kernel.periods import instant_text
from convergio.metering.model import BATCH_MAX
from tests.fakes.api import CARD, Api, event, running
from tests.fakes.meters import NOW

CANARY = "canary-7391"


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One product for the whole module; every test makes its own customers."""
    with running(server, template, tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def routes(api: Api) -> list[tuple[str, str, HTTPRouteHandler]]:
    """Every (method, path, handler) that the product declares; OPTIONS and the schema are not."""
    found: list[tuple[str, str, HTTPRouteHandler]] = []
    for route in inside(api.product).routes:
        if isinstance(route, HTTPRoute) and not route.path.startswith("/schema"):
            for handler in route.route_handlers:
                methods = handler.http_methods - {"OPTIONS"}
                found += [(str(method), route.path_format, handler) for method in methods]
    return found


def problem(found: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Check the shape of a refusal and return it."""
    assert found.status_code == status, found.text
    assert found.headers["content-type"].startswith("application/problem+json")
    told: dict[str, Any] = found.json()
    assert told["status"] == status
    assert told["type"] == f"urn:convergio:{told['code']}"
    assert told["title"]
    if code is not None:
        assert told["code"] == code, told
    for inner in ("Traceback", "psycopg", "SELECT", ".py", "litestar", CARD, CANARY):
        assert inner not in found.text, inner
    return told


def concrete(path: str) -> str:
    """Fill a route's parameters."""
    return path.replace("{line}", "1").replace("{", "").replace("}", "")


def test_every_route_declares_a_scope_or_says_that_it_is_open(
    routes: list[tuple[str, str, HTTPRouteHandler]],
) -> None:
    assert len(routes) >= 14
    for method, path, handler in routes:
        scope, is_open = handler.opt.get(SCOPE_KEY), handler.opt.get(PUBLIC)
        assert isinstance(scope, Scope) != bool(is_open), f"{method} {path}"
    assert {path for _, path, handler in routes if handler.opt.get(PUBLIC)} == {"/readyz"}


def test_no_route_but_the_open_ones_answers_without_a_key(
    api: Api, routes: list[tuple[str, str, HTTPRouteHandler]]
) -> None:
    for method, path, handler in routes:
        if not handler.opt.get(PUBLIC):
            found = api.send(method, concrete(path), key=None)
            problem(found, 401)
            assert found.headers["www-authenticate"].startswith("Bearer")


def test_a_key_without_the_route_s_scope_is_refused_on_every_route(
    api: Api, routes: list[tuple[str, str, HTTPRouteHandler]]
) -> None:
    keys = {scope: api.key(*(s for s in Scope if s not in {scope, Scope.ADMIN})) for scope in Scope}
    for method, path, handler in routes:
        scope = handler.opt.get(SCOPE_KEY)
        if scope is not None:
            told = problem(api.send(method, concrete(path), key=keys[scope]), 403)
            assert scope in told["detail"]


def test_the_open_routes_answer_anybody(api: Api) -> None:
    assert api.get("/healthz", key=None).json() == {"status": "ok"}
    assert api.get("/readyz", key=None).json() == {"status": "ready"}


def test_the_document_of_the_api_needs_a_key_and_lists_every_route(
    api: Api, routes: list[tuple[str, str, HTTPRouteHandler]]
) -> None:
    for path in ("/schema", "/schema/openapi.json"):
        problem(api.get(path, key=None), 401)
        problem(api.get(path, key=api.key(Scope.USAGE_WRITE)), 403)
    document = api.get("/schema/openapi.json", key=api.key(Scope.CATALOG_READ)).json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) >= {path for _, path, _ in routes}


def test_web_08_every_answer_has_the_security_headers(
    api: Api, routes: list[tuple[str, str, HTTPRouteHandler]]
) -> None:
    answers = [api.send(method, concrete(path)) for method, path, _ in routes]
    answers += [api.send(method, concrete(path), key=None) for method, path, _ in routes]
    answers += [
        api.get("/healthz"),
        api.get("/nowhere"),
        api.send("DELETE", "/v1/events"),
        api.send("OPTIONS", "/v1/quota"),
        api.post("/v1/events", b"{"),
    ]
    for found in answers:
        where = f"{found.request.method} {found.request.url} {found.status_code}"
        assert found.headers["x-content-type-options"] == "nosniff", where
        assert found.headers["cache-control"] == "no-store", where
        assert found.headers["referrer-policy"] == "no-referrer", where
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy, where
        assert "frame-ancestors 'none'" in policy, where
        assert "base-uri 'none'" in policy, where
        seconds = int(found.headers["strict-transport-security"].split(";")[0].split("=")[1])
        assert seconds >= 31_536_000, where
        assert "includeSubDomains" in found.headers["strict-transport-security"], where
        assert "access-control-allow-origin" not in found.headers, where
        assert "server" not in found.headers, where


def test_what_is_not_there_and_what_is_not_allowed_are_problems_too(api: Api) -> None:
    problem(api.get("/nowhere"), 404)
    problem(api.get("/v1/events"), 405)
    found = api.send("DELETE", "/v1/customers")
    problem(found, 405)
    assert set(found.headers["allow"].split(", ")) >= {"GET", "POST"}
    assert (found.json()["code"], "GET" in found.json()["detail"]) == ("method_not_allowed", True)


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer cvg_live_short",
        f"Bearer cvg_live_{'a' * 36}", "Bearer " + "x" * 10_000, "Bearer \xff\xfe", "Bearer a b c",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/events", "/v1/authorize", "/v1/customers"])
def test_a_wrong_key_is_one_and_the_same_answer(api: Api, header: str | None, path: str) -> None:
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    told = problem(api.post(path, {}, key=None, headers=headers), 401)
    assert "cvg_live_" not in told["detail"].replace("cvg_live_...", "")


def test_key_01_a_revoked_key_is_dead_within_a_minute(
    server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running(server, template, tmp_path_factory.mktemp("home")) as own:
        secret = own.key(Scope.USAGE_READ)
        assert own.get("/v1/usage?meter=questions", key=secret).status_code == 200
        with own.product.database.transaction() as tx:
            for one in identity.page(tx):
                if one.scopes == ["usage:read"]:
                    identity.revoke(tx, one.api_key_id, now=own.now)
        clock = own.product.clock
        assert isinstance(clock, VirtualClock)
        clock.advance_to(own.now + timedelta(seconds=60))
        problem(own.get("/v1/usage?meter=questions", key=secret), 401)


def test_one_event_and_a_batch_are_counted(api: Api) -> None:
    name, _ = api.customer()
    one = event(name, data={"quantity": 2})
    found = api.post("/v1/events", one)
    assert (found.status_code, found.json()["accepted"]) == (202, 1)
    again = api.post("/v1/events", [one, event(name, data={"quantity": "0.5"}), event("nobody")])
    assert again.status_code == 202
    told = again.json()
    assert [told[k] for k in ("accepted", "duplicate", "conflict", "rejected")] == [1, 1, 0, 1]
    assert [(row["index"], row["status"]) for row in told["events"]] == [
        (0, "duplicate"), (2, "rejected"),
    ]  # fmt: skip
    usage = api.get(f"/v1/usage?meter=questions&customer={name}").json()
    assert usage["usage"] == [{"start": "2025-01-01T00:00:00Z", "quantity": "2.5", "events": 2}]


def test_a_refused_single_event_is_a_problem_with_its_field(api: Api) -> None:
    name, _ = api.customer()
    one = event(name, data={"quantity": 1})
    assert api.post("/v1/events", one).status_code == 202
    problem(api.post("/v1/events", {**one, "data": {"quantity": 2}}), 409, "other_payload")
    told = problem(api.post("/v1/events", event(name, data={"quantity": -1})), 422, "bad_quantity")
    assert told["field"] == "data.quantity"


@pytest.mark.parametrize(
    "kind", ["application/cloudevents+json", "application/json; charset=utf-8"]
)
def test_the_media_types_of_cloudevents_are_read(api: Api, kind: str) -> None:
    name, _ = api.customer()
    body = json.dumps(event(name)).encode()
    assert api.post("/v1/events", body, headers={"content-type": kind}).status_code == 202
    batch = {"content-type": "application/cloudevents-batch+json"}
    found = api.post("/v1/events", b"[" + body + b"]", headers=batch)
    assert found.json()["duplicate"] == 1


def test_a_gzip_body_is_read_also_in_several_members(api: Api) -> None:
    name, _ = api.customer()
    headers = {"content-encoding": "gzip"}
    whole = json.dumps([event(name), event(name)]).encode()
    assert api.post("/v1/events", gzip.compress(whole), headers=headers).json()["accepted"] == 2
    half = len(whole) // 2
    parts = gzip.compress(whole[:half]) + gzip.compress(whole[half:])
    assert api.post("/v1/events", parts, headers=headers).json()["duplicate"] == 2


BAD_BODIES: list[tuple[bytes, dict[str, str], int]] = [
    (b"", {}, 400),
    (b"{", {}, 400),
    (b"NaN", {}, 400),
    (b'{"id":"a","source":"s","type":"ai.request","subject":"c","data":{"quantity":NaN}}', {}, 400),
    (b'{"id":"\\ud800","source":"s","type":"ai.request","subject":"c"}', {}, 400),
    (b'{"id":"\xff","source":"s","type":"ai.request","subject":"c"}', {}, 400),
    (b"[" * 100_000, {}, 400),
    (b'{"data":' * 50_000, {}, 400),
    (b"[]", {}, 422),
    (b"null", {}, 422),
    (b"7", {}, 422),
    (b"{}", {}, 422),
    (b"x", {"content-type": "text/plain"}, 415),
    (b"a=1", {"content-type": "application/x-www-form-urlencoded"}, 415),
    (b"{}", {"content-encoding": "br"}, 400),
    (b"not gzip", {"content-encoding": "gzip"}, 400),
    (gzip.compress(b"{}")[:-4], {"content-encoding": "gzip"}, 400),
    (gzip.compress(b"[]") + b"rest", {"content-encoding": "gzip"}, 400),
    (gzip.compress(b"") * 1_000, {"content-encoding": "gzip"}, 400),
    (gzip.compress(b"{" + b" " * (BODY_SIZE_MAX + 1)), {"content-encoding": "gzip"}, 413),
    (b"[" + b" " * BODY_SIZE_MAX + b"]", {}, 413),
    (b"[" + b",".join([b"{}"] * (BATCH_MAX + 1)) + b"]", {}, 413),
]


def test_bad_bodies_are_problems_and_nothing_is_stored(api: Api) -> None:
    before = api.count("usage_event")
    for body, headers, status in BAD_BODIES:
        problem(api.post("/v1/events", body, headers=headers), status)
    assert api.count("usage_event") == before


@pytest.mark.parametrize("declared", ["52428800", "-1", "1e3", "x"])
def test_dos_01_a_declared_size_beyond_the_limit_is_refused_before_it_is_read(
    api: Api, declared: str
) -> None:
    read = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(64):
            read += 1
            yield b" " * 1_000_000

    found = api.send(
        "POST", "/v1/events", content=parts(),
        headers={"content-length": declared, "content-type": "application/json"},
    )  # fmt: skip
    problem(found, 413)
    assert read <= 1


def test_an_undeclared_stream_is_cut_at_the_limit(api: Api) -> None:
    read = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(64):
            read += 1
            yield b" " * 1_000_000

    headers = {"content-type": "application/json"}
    problem(api.send("POST", "/v1/events", content=parts(), headers=headers), 413)
    assert read <= 10


def test_an_ask_is_small_also_when_it_is_packed(api: Api) -> None:
    for body, headers in (
        (b'{"customer":"a","meter":"' + b"b" * 16_384 + b'"}', {}),
        (gzip.compress(b" " * 16_385), {"content-encoding": "gzip"}),
    ):
        problem(api.post("/v1/authorize", body, headers=headers), 413)


def test_a_body_in_many_parts_is_read_whole(api: Api) -> None:
    name, _ = api.customer()
    events = [
        {"id": f"part-{number}", "source": "test", "type": "ai.request", "subject": name}
        for number in range(200)
    ]
    whole = msgspec.json.encode(events)

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 7):
            yield whole[start : start + 7]

    headers = {"content-type": "application/json"}
    found = api.send("POST", "/v1/events", content=parts(), headers=headers)
    assert (found.status_code, found.json()["accepted"]) == (202, 200)


def test_dos_02_a_gzip_bomb_is_stopped_at_the_unpacked_limit(api: Api) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(200)) + packer.flush()
    assert len(bomb) < 1_000_000
    problem(api.post("/v1/events", bomb, headers={"content-encoding": "gzip"}), 413)


UNKNOWN = {"is_admin": True}
ASK = {"customer": "x", "meter": "questions"}
RESERVATION = "/v1/reservations/rsv_00000000000000000000000001"
BAD_REQUESTS: list[tuple[str, Any, int, str | None]] = [
    ("/v1/authorize", {**ASK, **UNKNOWN}, 422, None),
    ("/v1/authorize", {**ASK, "quantity": 1}, 422, None),
    ("/v1/authorize", {**ASK, "quantity": "0"}, 422, "quantity"),
    ("/v1/authorize", {**ASK, "quantity": "-1"}, 422, "quantity"),
    ("/v1/authorize", {**ASK, "quantity": "NaN"}, 422, "quantity"),
    ("/v1/authorize", {**ASK, "quantity": "1" + "0" * 18}, 422, "quantity"),
    ("/v1/authorize", {**ASK, "quantity": "9" * 29}, 422, "quantity"),
    ("/v1/authorize", {"customer": CARD, "meter": CARD}, 404, None),
    ("/v1/authorize", {"customer": "\x00", "meter": "questions"}, 404, None),
    ("/v1/authorize", b"{", 400, None),
    ("/v1/authorize", b'{"customer":' + b"[" * 10_000, 422, None),
    ("/v1/authorize", b'{"customer":' + b"[" * 100_000, 413, None),
    ("/v1/authorize", b'{"customer":"\\ud800","meter":"questions"}', 400, None),
    ("/v1/customers", {"key": "x", **UNKNOWN}, 422, "is_admin"),
    ("/v1/customers", {"key": ""}, 422, None),
    ("/v1/customers", {"key": "a\x00b"}, 422, None),
    ("/v1/customers", {"key": "x" * 10_000}, 422, None),
    ("/v1/customers", {"key": 7}, 422, None),
    ("/v1/customers", {"key": "x", "currency": CANARY}, 422, "currency"),
    ("/v1/customers", {"key": "x", "currency": CARD}, 422, "currency"),
    ("/v1/customers", {"key": "x", "email": "no at sign"}, 422, "email"),
    ("/v1/customers", {"key": "x", "name": "a\r\nBcc: x"}, 422, "name"),
    ("/v1/customers", {"key": "x", "name": "n" * 10_000}, 422, "name"),
    ("/v1/customers", {"key": "x", "country": "Italy"}, 422, "country"),
    ("/v1/customers", b'{"key":"\\ud800"}', 400, None),
    ("/v1/customers", b'{"key":NaN}', 400, None),
    ("/v1/customers", b"{", 400, None),
    ("/v1/customers", b"[" * 100_000, 400, None),
    ("/v1/customers", b'{"key":"' + b"x" * 2_000_000 + b'"}', 413, None),
    ("/v1/subscriptions", {"customer": "nobody", "plan": "pro"}, 404, "customer"),
    ("/v1/subscriptions", {"customer": "nobody", "plan": "pro", "price": "0"}, 422, "price"),
    ("/v1/reservations/rsv_x/commit", {"customer": "nobody"}, 422, None),
    (f"/v1/reservations/{CARD}/commit", {"customer": "nobody"}, 422, None),
    (f"{RESERVATION}/commit", {"customer": "nobody"}, 404, "customer"),
    (f"{RESERVATION}/release", {"customer": "\x00"}, 422, None),
]  # fmt: skip
BAD_QUESTIONS: list[tuple[str, int, str | None]] = [
    ("/v1/usage", 422, "meter"),
    ("/v1/usage?meter=nope", 404, "meter"),
    (f"/v1/usage?meter={CARD}", 404, "meter"),
    ("/v1/usage?meter=questions&by=second", 422, "by"),
    ("/v1/usage?meter=questions&time_zone=Europe/Atlantis", 422, "time_zone"),
    (f"/v1/usage?meter=questions&time_zone={CARD}", 422, "time_zone"),
    ("/v1/usage?meter=questions&from=yesterday", 422, "from"),
    ("/v1/usage?meter=questions&to=2025-01-01T00:00:00", 422, "to"),
    ("/v1/usage?meter=questions&customer=nobody", 404, "customer"),
    ("/v1/usage?meter=questions&customer=%00", 404, "customer"),
    ("/v1/usage?meter=%00", 404, "meter"),
    ("/v1/quota?customer=nobody&meter=questions", 404, "customer"),
    ("/v1/quota?customer=%00&meter=%00", 404, None),
    ("/v1/quota?customer=x", 422, "meter"),
    ("/v1/customers/nobody", 404, "customer"),
    ("/v1/customers/%00", 404, "customer"),
    ("/v1/customers/cus_8zzzzzzzzzzzzzzzzzzzzzzzzz", 404, "customer"),
    ("/v1/invoices?limit=1000000000", 422, None),
    ("/v1/invoices?limit=0", 422, None),
    ("/v1/invoices?limit=x", 422, None),
    ("/v1/invoices?after=x", 422, None),
    ("/v1/invoices/CVG-2025-000001", 404, None),
]


def test_bad_requests_are_problems_that_echo_nothing(api: Api) -> None:
    for path, body, status, field in BAD_REQUESTS:
        told = problem(api.post(path, body), status)
        if field is not None:
            assert told.get("field") == field, (path, body, told)
    for path, status, field in BAD_QUESTIONS:
        told = problem(api.get(path), status)
        if field is not None:
            assert told.get("field") == field, (path, told)


def test_a_fault_tells_nothing_of_the_inside(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr("convergio.api.routes.customers.create", broken)
    told = problem(api.post("/v1/customers", {"key": "x"}), 500, "fault")
    assert "detail" not in told


def test_authorize_reserves_and_a_commit_counts(api: Api) -> None:
    name, _ = api.customer("free")
    found = api.post("/v1/authorize", {"customer": name, "meter": "questions", "quantity": "20"})
    told = found.json()
    assert (found.status_code, told["allowed"]) == (200, True)
    denied = problem(
        api.post("/v1/authorize", {"customer": name, "meter": "questions", "quantity": "31"}),
        429, "limit_reached",
    )  # fmt: skip
    assert denied["allowed"] is False
    path = f"/v1/reservations/{told['reservation']}"
    settled = api.post(f"{path}/commit", {"customer": name, "actual": "12.5"}).json()
    assert (settled["state"], settled["held"], settled["settled"]) == ("committed", "20", "12.5")
    problem(api.post(f"{path}/release", {"customer": name}), 409)
    quota = api.get(f"/v1/quota?customer={name}&meter=questions").json()
    numbers = [quota[name] for name in ("limit", "used", "reserved", "remaining")]
    assert numbers == ["50", "12.5", "0", "37.5"]


def test_an_old_event_needs_the_scope_to_import(api: Api) -> None:
    name, _ = api.customer()
    plain = api.key(Scope.USAGE_WRITE)
    importer = api.key(Scope.USAGE_WRITE, Scope.USAGE_IMPORT)
    old = event(name, time=instant_text(NOW - timedelta(days=90)))
    problem(api.post("/v1/events", old, key=plain), 422, "time_too_old")
    assert api.post("/v1/events", old, key=importer).status_code == 202
