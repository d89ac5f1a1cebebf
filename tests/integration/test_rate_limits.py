"""Limits of requests over HTTP: refused in one shape, told ahead, and never counted as usage."""

from collections.abc import Iterator

import pytest

from convergio.identity.model import Scope
from convergio.infra.postgres import Embedded
from tests.fakes.api import Api, event, running

LIMITS = {
    "rate_limit_key": "40/hour",
    "rate_limit_hot": "30/hour",
    "rate_limit_customer": "20/hour",
    "rate_limit_address": "1000/hour",
}


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, template, tmp_path_factory.mktemp("home"), **LIMITS) as opened:
        yield opened


def test_quota_06_one_event_too_many_is_told_when_to_come_back_and_is_not_counted(
    api: Api,
) -> None:
    name, _ = api.customer()
    key = api.key(Scope.USAGE_WRITE)
    answers = [api.post("/v1/events", event(name), key=key) for _ in range(35)]
    assert [one.status_code for one in answers] == [202] * 30 + [429] * 5
    refused = answers[-1]
    assert refused.headers["content-type"].startswith("application/problem+json")
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    assert refused.headers["ratelimit-policy"] == '"key";q=30;w=3600'
    assert refused.headers["ratelimit"].startswith('"key";r=0;t=')
    reader = api.key(Scope.USAGE_READ)
    usage = api.get(f"/v1/usage?meter=questions&customer={name}", key=reader).json()["usage"]
    assert usage[0]["quantity"] == "30"


def test_a_decision_is_limited_by_customer_before_anything_is_held(api: Api) -> None:
    name, _ = api.customer("free")
    key = api.key(Scope.QUOTA_WRITE)
    ask = {"customer": name, "meter": "questions"}
    answers = [api.post("/v1/authorize", ask, key=key) for _ in range(22)]
    assert [one.status_code for one in answers] == [200] * 20 + [429] * 2
    told = answers[-1].json()
    assert (told["code"], "allowed" in told) == ("rate_limited", False)
    quota = api.get(f"/v1/quota?customer={name}&meter=questions", key=api.key(Scope.QUOTA_READ))
    assert quota.json()["reserved"] == "20"


def test_every_answer_of_a_limited_route_says_how_the_limit_stands(api: Api) -> None:
    key = api.key(Scope.INVOICES_READ)
    first = api.get("/v1/invoices", key=key)
    assert first.headers["ratelimit-policy"] == '"key";q=40;w=3600'
    assert first.headers["ratelimit"].startswith('"key";r=39;t=')
    assert "retry-after" not in first.headers
    lacking = api.get("/v1/customers", key=key)
    assert (lacking.status_code, lacking.headers["ratelimit"][:10]) == (403, '"key";r=38')
    last = [api.get("/v1/invoices", key=key) for _ in range(40)][-1]
    assert last.status_code == 429
    assert last.json()["code"] == "rate_limited"
    assert int(last.headers["retry-after"]) >= 1


def test_quota_08_more_keys_of_one_customer_make_no_more_requests(api: Api) -> None:
    _, customer_id = api.customer("pro")
    keys = [api.key(Scope.INVOICES_READ, customer_id=customer_id) for _ in range(3)]
    status = [api.get("/v1/invoices", key=keys[n % 3]).status_code for n in range(24)]
    assert status == [200] * 20 + [429] * 4


def test_an_address_that_guesses_keys_is_limited_before_it_is_asked_who_it_is(
    server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    with running(server, template, home, rate_limit_address="5/hour") as own:
        wrong = "cvg_live_" + "a" * 36
        status = [own.get("/v1/invoices", key=wrong).status_code for _ in range(3)]
        status += [own.post("/v1/events", {}, key=wrong).status_code for _ in range(4)]
        assert status == [401] * 5 + [429] * 2
        assert own.get("/v1/invoices", key=wrong).status_code == 429
        assert own.get("/healthz", key=None).status_code == 200


def test_a_customer_and_an_address_are_counted_once_over_all_routes_and_a_key_for_each_kind(
    api: Api,
) -> None:
    name, customer_id = api.customer("pro")
    scopes = (Scope.QUOTA_WRITE, Scope.USAGE_WRITE, Scope.INVOICES_READ)
    keys = [api.key(*scopes, customer_id=customer_id) for _ in range(2)]
    ask = {"customer": name, "meter": "questions"}
    status = [api.post("/v1/authorize", ask, key=keys[0]).status_code for _ in range(8)]
    status += [api.get("/v1/invoices", key=keys[n % 2]).status_code for n in range(8)]
    status += [api.post("/v1/events", event(name), key=keys[1]).status_code for _ in range(6)]
    assert status == [200] * 16 + [202] * 4 + [429] * 2
