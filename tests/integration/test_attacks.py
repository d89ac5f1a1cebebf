"""Attacks of the shared list that today's rooms must answer, each in our own words.

An attack that has a test file of its own (a limit raced by threads, a bomb) is there; here are
those that one request over HTTP shows. `attacks.json` says more, where it is at hand.
"""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from convergio.identity.model import Scope
from convergio.infra.postgres import Embedded
from convergio.infra.settings import load_settings
from convergio.kernel.periods import instant_text
from tests.conftest import SHARED
from tests.fakes.api import CARD, Api, event, running
from tests.fakes.meters import NOW

Attack = Callable[[Api], None]
ATTACKS: dict[str, tuple[str, Attack]] = {}
SPACED = "4242 4242 4242 4242"


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One product for all attacks."""
    with running(server, template, tmp_path_factory.mktemp("home")) as opened:
        yield opened


def attack(number: str, words: str) -> Callable[[Attack], Attack]:
    """Register an attack under its number in the list."""

    def register(work: Attack) -> Attack:
        assert number not in ATTACKS
        ATTACKS[number] = (words, work)
        return work

    return register


def refused(found: httpx.Response, *status: int) -> dict[str, Any]:
    """Check that it is refused as a problem, and return it."""
    assert found.status_code in status, found.text
    assert found.headers["content-type"].startswith("application/problem+json")
    assert CARD not in found.text
    assert SPACED not in found.text
    told: dict[str, Any] = found.json()
    return told


def quantity(api: Api, value: object, *status: int) -> None:
    """Send an event with this quantity; nothing may be kept of it."""
    name, _ = api.customer()
    before = api.count("usage_event")
    refused(api.post("/v1/events", event(name, data={"quantity": value})), *status)
    raw = json.dumps([event(name, data={"quantity": value})])
    refused(api.post("/v1/events", raw.encode()), *status)
    assert api.count("usage_event") == before


@attack("TEN-11", "a key that may only send usage reads invoices or makes customers")
def _(api: Api) -> None:
    key = api.key(Scope.USAGE_WRITE)
    for path in ("/v1/invoices", "/v1/invoices/CVG-2025-000001", "/v1/usage?meter=questions"):
        refused(api.get(path, key=key), 403)
    before = api.count("customer")
    refused(api.post("/v1/customers", {"key": "x"}, key=key), 403)
    refused(api.post("/v1/authorize", {"customer": "x", "meter": "questions"}, key=key), 403)
    assert api.count("customer") == before


@attack("TEN-03", "a bound key lists with another customer in the question or the body")
def _(api: Api) -> None:
    mine, customer_id = api.customer("pro")
    other, _ = api.customer("pro")
    key = api.key(*(s for s in Scope if s is not Scope.ADMIN), customer_id=customer_id)
    for path in (f"/v1/invoices?customer={other}", f"/v1/usage?meter=questions&customer={other}"):
        refused(api.get(path, key=key), 404)
    ask = {"customer": other, "meter": "questions"}
    refused(api.post("/v1/authorize", ask, key=key), 404)
    assert api.get(f"/v1/customers/{mine}", key=key).status_code == 200


@attack("MASS-01", "a new customer comes with rights, a balance and a tenant of its own choice")
def _(api: Api) -> None:
    before = api.count("customer")
    for field in ("is_admin", "tenant_id", "balance", "credit", "customer_id", "created_at"):
        told = refused(api.post("/v1/customers", {"key": "mass", field: 1}), 422)
        assert told["field"] == field
    assert api.count("customer") == before


@attack("MASS-04", "a subscription brings its own price")
def _(api: Api) -> None:
    name, _ = api.customer()
    for field in ("price", "amount", "tax_rate", "currency", "discount"):
        body = {"customer": name, "plan": "pro", field: "0"}
        assert refused(api.post("/v1/subscriptions", body), 422)["field"] == field
    assert api.get(f"/v1/quota?customer={name}&meter=questions").json()["access"] == "none"


@attack("QTY-01", "a quantity below zero")
def _(api: Api) -> None:
    for value in (-1, -0.5, "-1", -(2**63)):
        quantity(api, value, 422)


@attack("QTY-02", "the words NaN and Infinity, bare")
def _(api: Api) -> None:
    for value in (float("nan"), float("inf"), float("-inf")):
        name, _ = api.customer()
        raw = json.dumps(event(name, data={"quantity": value})).encode()
        refused(api.post("/v1/events", raw), 400)


@attack("QTY-03", "the words NaN and Infinity, as text")
def _(api: Api) -> None:
    for value in ("NaN", "sNaN", "Infinity", "-Infinity", "nan"):
        quantity(api, value, 422)


@attack("QTY-04", "numbers beyond every column")
def _(api: Api) -> None:
    for value in (2**63, 10**39, 10**18, 1e308, "1" * 40):
        quantity(api, value, 422)


@attack("QTY-07", "a truth, a list, a mapping or null for a quantity")
def _(api: Api) -> None:
    values: tuple[object, ...] = (True, False, [], {}, [1], None)
    for value in values:
        quantity(api, value, 422)


@attack("QTY-09", "a quantity too small to be kept")
def _(api: Api) -> None:
    for value in (1e-30, "0.0000000001"):
        quantity(api, value, 422)


@attack("QTY-10", "zero, and zero with a sign")
def _(api: Api) -> None:
    name, _ = api.customer()
    for value in (0, -0, "0"):
        sent = api.post("/v1/events", event(name, data={"quantity": value}))
        assert sent.status_code == 202
    usage = api.get(f"/v1/usage?meter=questions&customer={name}").json()["usage"]
    assert [row["quantity"] for row in usage] == ["0"]
    quantity(api, "-0", 422)
    quantity(api, -0.0, 422)


@attack("QTY-14", "event ids that are empty, huge or of control characters")
def _(api: Api) -> None:
    name, _ = api.customer()
    for bad in ("\x00", "a\nb", "\x1b[0m", "x" * 300, "x" * 10_000, " \t"):
        told = refused(api.post("/v1/events", event(name, bad)), 422)
        assert told["field"] == "id"
    told = refused(api.post("/v1/events", {**event(name), "id": ""}), 422)
    assert told["field"] == "id"


@attack("QTY-15", "a lone surrogate in any text")
def _(api: Api) -> None:
    name, _ = api.customer()
    for field in ("id", "source", "type", "subject"):
        raw = json.dumps({**event(name), field: "\ud800"}).encode()
        refused(api.post("/v1/events", raw), 400, 422)
    refused(api.post("/v1/events", json.dumps(event(name, data={"model": "\udfff"})).encode()), 400)
    refused(api.post("/v1/customers", b'{"key":"\\ud800"}'), 400)


@attack("QTY-17", "a meter or type that does not exist")
def _(api: Api) -> None:
    name, _ = api.customer()
    before = api.count("usage_event")
    refused(api.post("/v1/events", event(name, type="no.such.type")), 422)
    refused(api.get(f"/v1/quota?customer={name}&meter=nope"), 404)
    refused(api.post("/v1/authorize", {"customer": name, "meter": "nope"}), 404)
    assert api.count("usage_event") == before


@attack("QTY-19", "ten thousand properties, or ten thousand levels of them")
def _(api: Api) -> None:
    name, _ = api.customer()
    wide = {f"p{number}": number for number in range(10_000)}
    assert api.post("/v1/events", event(name, data=wide)).status_code == 202
    deep = b'{"quantity":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    raw = json.dumps(event(name)).encode()[:-1] + b',"data":' + deep + b"}"
    refused(api.post("/v1/events", raw), 400)
    refused(api.post("/v1/events", event(name, data={"model": "x" * 100_000})), 422)


@attack("TIME-01", "an event of ten years ago")
def _(api: Api) -> None:
    name, _ = api.customer()
    key = api.key(Scope.USAGE_WRITE)
    old = event(name, time=instant_text(NOW - timedelta(days=3_650)))
    told = refused(api.post("/v1/events", old, key=key), 422)
    assert (told["code"], told["field"]) == ("time_too_old", "time")


@attack("TIME-02", "an event of an hour from now")
def _(api: Api) -> None:
    name, _ = api.customer()
    told = refused(api.post("/v1/events", event(name, time="2025-01-15T13:00:00Z")), 422)
    assert (told["code"], told["field"]) == ("time_ahead", "time")


@attack("TIME-04", "a time without a zone")
def _(api: Api) -> None:
    name, _ = api.customer()
    told = refused(api.post("/v1/events", event(name, time="2025-01-15T11:00:00")), 422)
    assert told["field"] == "time"
    refused(api.get("/v1/usage?meter=questions&from=2025-01-01T00:00:00"), 422)


@attack("TIME-09", "milliseconds where an instant belongs")
def _(api: Api) -> None:
    name, _ = api.customer()
    for value in (1_736_942_400_000, "1736942400000"):
        assert refused(api.post("/v1/events", event(name, time=value)), 422)["field"] == "time"


@attack("IDEM-12", "one event twice in a batch, and again in the next")
def _(api: Api) -> None:
    name, _ = api.customer()
    one = event(name)
    first = api.post("/v1/events", [one, one]).json()
    second = api.post("/v1/events", [one, event(name)]).json()
    assert (first["accepted"], first["duplicate"]) == (1, 1)
    assert (second["accepted"], second["duplicate"]) == (1, 1)
    assert [row["index"] for row in first["events"] + second["events"]] == [1, 0]
    usage = api.get(f"/v1/usage?meter=questions&customer={name}").json()["usage"]
    assert usage[0]["quantity"] == "2"


@attack("QUOTA-02", "a request for more than is left of a hard limit")
def _(api: Api) -> None:
    name, _ = api.customer("free")
    ask = {"customer": name, "meter": "questions", "quantity": "50.000000001"}
    assert refused(api.post("/v1/authorize", ask), 429)["allowed"] is False
    quota = api.get(f"/v1/quota?customer={name}&meter=questions").json()
    assert (quota["reserved"], quota["remaining"]) == ("0", "50")


@attack("TIME-07", "an anchor on the 31st")
def _(api: Api) -> None:
    name, _ = api.customer()
    body = {"customer": name, "plan": "pro", "start": "2024-10-31T00:00:00Z"}
    assert api.post("/v1/subscriptions", body).status_code == 201
    ends = []
    for at in ("2024-11-05", "2024-12-05", "2025-01-05"):
        old = event(name, time=f"{at}T00:00:00Z")
        assert api.post("/v1/events", old).status_code == 202
    with api.product.database.transaction() as tx:
        query = b"""SELECT start_at, end_at FROM usage_total JOIN customer_directory USING
            (customer_id) WHERE customer_key = %s AND dimensions = '' GROUP BY 1, 2 ORDER BY 1"""
        for start, end in tx.raw.execute(query, [name]).fetchall():
            ends.append((start.strftime("%m-%d"), end.strftime("%m-%d")))
    assert ends == [("10-31", "11-30"), ("11-30", "12-31"), ("12-31", "01-31")]


@attack("TEN-07", "a key that may only read credits, voids and gives up an invoice")
def _(api: Api) -> None:
    key = api.key(*(s for s in Scope if s.value.endswith(":read")))
    before = api.count("credit_note")
    for verb, body in (
        ("credit", {"reason": "x"}),
        ("void", {"how": "waive"}),
        ("uncollectible", None),
    ):
        refused(api.post(f"/v1/invoices/CVG-2025-000001/{verb}", body, key=key), 403)
    assert api.count("credit_note") == before


@attack("TEN-08", "a customer's own key asks for what is the seller's alone")
def _(api: Api) -> None:
    _, customer_id = api.customer("pro")
    key = api.key(*Scope, customer_id=customer_id)
    refused(api.get("/v1/customers", key=key), 403)
    refused(api.post("/v1/customers", {"key": "mine"}, key=key), 403)
    refused(api.post("/v1/catalog/apply", b"currency: usd", key=key), 403)
    refused(api.post("/v1/catalog/plan", b"currency: usd", key=key), 403)


@attack("TEN-16", "two customers use the same id for their events")
def _(api: Api) -> None:
    names = [api.customer()[0] for _ in range(2)]
    sent = api.post("/v1/events", [event(name, "same-id") for name in names])
    assert sent.json()["accepted"] == 2
    for name in names:
        usage = api.get(f"/v1/usage?meter=questions&customer={name}").json()["usage"]
        assert usage[0]["quantity"] == "1"


@attack("MASS-02", "an invoice is told that it is paid and comes to nothing")
def _(api: Api) -> None:
    """The list says 422 or 403. No route takes it at all, and HTTP's word for that is 405."""
    body = {"status": "paid", "total": 0}
    where = f"/v1/invoices/{api.billed()}"
    before = api.get(where).json()
    for method in ("PATCH", "PUT", "DELETE", "POST"):
        found = api.send(method, where, body)
        assert refused(found, 405)["code"] == "method_not_allowed"
        assert "GET" in found.headers["allow"].split(", ")
    told = refused(api.post(f"{where}/void", {"how": "waive", **body}), 422)
    assert told["field"] in body
    assert api.get(where).json() == before
    assert (before["status"], before["due"]) == ("open", "6.99")


@attack("MASS-03", "a subscription is told that its trial never ends")
def _(api: Api) -> None:
    name, customer_id = api.customer("pro")
    key = api.key(Scope.SUBSCRIPTIONS_WRITE, Scope.SUBSCRIPTIONS_READ, customer_id=customer_id)
    (shown,) = api.get(f"/v1/subscriptions?customer={name}", key=key).json()["subscriptions"]
    body = {"customer": name, "trial_end": "2099-01-01T00:00:00Z"}
    told = refused(api.post("/v1/subscriptions/change", body, key=key), 422)
    assert told["field"] == "trial_end"
    where = f"/v1/customers/{name}/subscriptions/{shown['id']}"
    refused(api.send("PATCH", where, {"trial_end": "2099-01-01"}, key=key), 405)
    assert api.get(where, key=key).json() == shown


@attack("KEY-03", "a key whose checksum is wrong")
def _(api: Api) -> None:
    good = api.key(Scope.USAGE_READ)
    for bad in (good[:-1] + ("a" if good[-1] != "a" else "b"), good[:-1], good + "a", good.upper()):
        refused(api.get("/v1/usage?meter=questions", key=bad), 401)
    assert api.get("/v1/usage?meter=questions", key=good).status_code == 200


@attack("KEY-04", "a test key on live data")
def _(api: Api) -> None:
    key = api.key(Scope.USAGE_READ).replace("_live_", "_test_")
    refused(api.get("/v1/usage?meter=questions", key=key), 401)


@attack("KEY-08", "a key in the address, and in what is answered")
def _(api: Api) -> None:
    key = api.key(Scope.ADMIN)
    refused(api.get(f"/v1/usage?meter=questions&api_key={key}&key={key}", key=None), 401)
    for path in ("customers/{}", "usage?meter={}", "quota?customer={}&meter=x"):
        assert key not in api.get(f"/v1/{path}".format(key)).text


@attack("INJ-01", "SQL in every question")
def _(api: Api) -> None:
    text = "x' OR '1'='1"
    for path in (
        f"/v1/usage?meter={text}", f"/v1/usage?meter=questions&customer={text}",
        f"/v1/usage?meter=questions&by={text}", f"/v1/usage?meter=questions&time_zone={text}",
        f"/v1/invoices?customer={text}", f"/v1/invoices?after={text}", f"/v1/invoices/{text}",
        f"/v1/customers/{text}", f"/v1/quota?customer={text}&meter={text}",
    ):  # fmt: skip
        told = refused(api.get(path), 404, 422)
        assert "syntax" not in json.dumps(told)


@attack("INJ-02", "a column to sort by, with a statement behind it")
def _(api: Api) -> None:
    plain = api.get("/v1/invoices")
    odd = api.get("/v1/invoices?sort=id;DROP TABLE invoice&order=key_hash")
    assert odd.status_code in {200, 422}
    assert plain.status_code == 200
    assert api.count("invoice") >= 0


@attack("INJ-03", "wild cards where a name is looked for")
def _(api: Api) -> None:
    api.customer()
    for text in ("%25", "_%25", "%5C%25", "c-%25"):
        refused(api.get(f"/v1/customers/{text}"), 404)
        refused(api.get(f"/v1/usage?meter=questions&customer={text}"), 404)
        assert api.get(f"/v1/subscriptions?plan={text}").json()["subscriptions"] == []
        assert api.get(f"/v1/invoices?series={text}").json()["invoices"] == []
        found = api.get(f"/v1/customers?email={text}")
        assert found.status_code == 422 or found.json()["customers"] == []


@attack("INJ-17", "a file name of the asker's own")
def _(api: Api) -> None:
    path = "/v1/usage?meter=questions&format=csv&filename=../../etc/passwd&name=x"
    found = api.get(path)
    assert found.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    refused(api.get("/v1/invoices/..%2f..%2fetc%2fpasswd/pdf"), 404, 422)


@attack("INJ-12", "line feeds and terminal codes in what is logged")
def _(api: Api) -> None:
    headers = {"user-agent": "x\x1b[31m"}
    assert api.get("/v1/invoices", headers=headers).status_code == 200
    refused(api.get("/v1/customers/a%0d%0ab%1b[31m"), 404)


@attack("INJ-14", "line feeds in a name or an address")
def _(api: Api) -> None:
    for field in ("name", "email", "tax_id"):
        body = {"key": "inj14", field: "a@b.example\r\nBcc: x@y.example"}
        assert refused(api.post("/v1/customers", body), 422)["field"] == field


@attack("DOS-03", "a batch of a million events")
def _(api: Api) -> None:
    before = api.count("usage_event")
    refused(api.post("/v1/events", b"[" + b"{}," * 1_000_000 + b"{}]"), 413)
    assert api.count("usage_event") == before


@attack("DOS-04", "a page of a billion")
def _(api: Api) -> None:
    for value in ("1000000000", "0", "-1", "1e3"):
        refused(api.get(f"/v1/invoices?limit={value}"), 422)


@attack("DOS-06", "a form of ten thousand parts")
def _(api: Api) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    for path in ("/v1/events", "/v1/authorize", "/v1/customers"):
        refused(api.post(path, part * 10_000 + b"--b--", headers=headers), 400, 413, 415)


@attack("DOS-07", "usage of a hundred years by the minute")
def _(api: Api) -> None:
    ages = "from=1925-01-01T00:00:00Z&to=2025-01-01T00:00:00Z"
    for question in (
        f"by=minute&{ages}", f"by=hour&{ages}", "by=minute", f"by=day&by_group=true&{ages}",
        "by=minute&by_group=true&from=2025-01-01T00:00:00Z",
    ):  # fmt: skip
        told = refused(api.get(f"/v1/usage?meter=questions&{question}"), 422)
        assert (told["code"], told["field"]) == ("too_costly", "by")
        assert "closer" in told["detail"]
    for question in ("by=minute&from=2025-01-14T00:00:00Z", "by=hour&by_group=true", "by=day"):
        assert api.get(f"/v1/usage?meter=questions&{question}").status_code == 200
    groups = "&".join(f"group_by=p{number}" for number in range(50))
    assert api.get(f"/v1/usage?meter=questions&{groups}").status_code == 200  # no such parameter


@attack("DOS-10", "a document in five thousand ranges")
def _(api: Api) -> None:
    number = api.billed()
    whole = api.get(f"/v1/invoices/{number}/pdf")
    parts = ",".join(["0-0"] * 5_000)
    found = api.get(f"/v1/invoices/{number}/pdf", headers={"range": f"bytes={parts}"})
    assert (found.status_code, len(found.content)) == (200, len(whole.content))


@attack("PAN-01", "a card number in a property, an address or a key")
def _(api: Api) -> None:
    name, _ = api.customer()
    before = api.count("usage_event")
    for text in (CARD, SPACED, f"paid with {SPACED}"):
        told = refused(api.post("/v1/events", event(name, data={"model": text})), 422)
        assert told["code"] == "card_number"
    assert api.count("usage_event") == before
    for body in ({"key": "a", "currency": CARD}, {"key": "a", CARD: "x"}):
        refused(api.post("/v1/customers", body), 422)
    for path, body in (
        ("/v1/customers", {"key": "a", "name": f"Ada {SPACED}"}),
        (
            f"/v1/customers/{name}/location-evidence",
            {"kind": "card", "country": "IT", "note": CARD},
        ),
    ):
        told = refused(api.post(path, body), 422)
        assert (told["code"], CARD in str(told)) == ("card_number", False)
    with api.product.database.transaction() as tx:
        query = b"SELECT count(*) FROM usage_event WHERE properties::text LIKE %s"
        assert tx.raw.execute(query, [f"%{CARD[:8]}%"]).fetchone() == (0,)


@attack("PAN-02", "a card number in the address")
def _(api: Api) -> None:
    for path in (
        f"/v1/customers/{CARD}", f"/v1/usage?meter={CARD}", f"/v1/{CARD}",
        f"/v1/quota?customer={CARD}&meter={CARD}", f"/v1/usage?meter=questions&time_zone={CARD}",
        f"/v1/invoices?after={CARD}", f"/v1/usage?meter=questions&by={CARD}",
    ):  # fmt: skip
        refused(api.get(path), 404, 422)


@attack("PAN-07", "a body with card fields")
def _(api: Api) -> None:
    for field in ("card[number]", "cvc", "track2", "pan"):
        told = refused(api.post("/v1/customers", {"key": "pan07", field: CARD}), 422)
        assert told["field"] == field


@attack("PAN-11", "a fault on purpose")
def _(api: Api) -> None:
    name, _ = api.customer()
    with api.product.database.transaction() as tx:
        tx.raw.execute(b"ALTER TABLE customer RENAME TO customer_gone")
    try:
        found = api.get(f"/v1/customers/{name}")
    finally:
        with api.product.database.transaction() as tx:
            tx.raw.execute(b"ALTER TABLE customer_gone RENAME TO customer")
    told = refused(found, 500)
    assert set(told) == {"type", "title", "status", "code"}


@attack("PAN-12", "files and pages that are nobody's business")
def _(api: Api) -> None:
    for path in (
        "/metrics", "/openapi.json", "/docs", "/debug", "/.env", "/.git/config", "/schema",
        "/schema/openapi.json", "/admin", "/..%2f..%2fetc/passwd",
    ):  # fmt: skip
        refused(api.get(path, key=None), 401, 403, 404)


@attack("PAN-13", "settings that are printed")
def _(_: Api) -> None:
    settings = load_settings({"DATABASE_URL": "postgresql://u:swordfish@h/d"})
    assert "swordfish" not in repr(settings) + str(settings)


@attack("WEB-05", "another site asks with its own origin")
def _(api: Api) -> None:
    for origin in ("https://evil.example", "null"):
        found = api.get("/v1/invoices", headers={"origin": origin})
        assert "access-control-allow-origin" not in found.headers
        preflight = {"origin": origin, "access-control-request-method": "POST"}
        found = api.send("OPTIONS", "/v1/events", headers=preflight)
        assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize("number", sorted(ATTACKS))
def test_the_attack_is_answered(api: Api, number: str) -> None:
    _, work = ATTACKS[number]
    work(api)


def test_every_attack_here_is_one_of_the_list() -> None:
    path = SHARED / "attacks.json"
    if not path.exists():
        pytest.skip("../shared/attacks.json does not exist here")
    known = {row["id"] for row in json.loads(path.read_text())}
    assert set(ATTACKS) <= known
