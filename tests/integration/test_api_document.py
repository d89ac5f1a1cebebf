"""The OpenAPI document: complete, true to what is answered, and the same for every operation.

`API_EXAMPLES=write .venv/bin/pytest tests/integration/test_api_document.py` makes the examples anew
from the business in `tests/fakes/api_story.py`, where a new route gets one line.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from convergio.api.document import operations
from convergio.api.examples import FILE, examples
from convergio.api.once import is_once
from convergio.api.security import PUBLIC, SCOPE_KEY
from convergio.identity.model import Scope
from convergio.infra.answers import HEADER
from convergio.infra.postgres import Embedded
from tests.fakes.api import Api, running
from tests.fakes.api_story import Told, shape, tell

# answered before the framework, or a file whose making has tests of its own
UNTOLD = {"ready", "invoice_xml", "credit_note_xml"}
CUT = {"plan_catalog", "apply_catalog"}  # the example shows the part of the file that is new
EXAMPLES_EACH = 5
PROBLEM = "application/problem+json"
Operations = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, template, tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    found = api.get("/schema/openapi.json", key=api.key(Scope.CATALOG_READ))
    assert found.status_code == 200, found.text
    told: dict[str, Any] = found.json()
    return told


@pytest.fixture(scope="module")
def described(document: dict[str, Any]) -> Operations:
    """Every operation by its id."""
    return {
        operation["operationId"]: operation | {"method": method, "path": path}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_an_operation_with_a_name_that_stays(
    api: Api, document: dict[str, Any], described: Operations
) -> None:
    assert document["openapi"].startswith("3.1")
    routes = list(operations(api.app))
    assert len(routes) == len(described) > 50
    for path, method, handler in routes:
        operation = document["paths"][path][method]
        assert operation["description"], operation["operationId"]
        scope = handler.opt.get(SCOPE_KEY)
        wanted = [] if handler.opt.get(PUBLIC) else [{"key": [str(scope)]}]
        assert operation["security"] == wanted
        named = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"]
        assert (HEADER in named) == is_once(handler), operation["operationId"]


def test_every_operation_has_an_example_of_its_body_and_of_its_answer(
    described: Operations,
) -> None:
    assert set(described) == set(examples())
    for name, operation in described.items():
        if "requestBody" in operation:
            for kind in operation["requestBody"]["content"].values():
                assert kind.get("example"), f"{name} has no example of a request"
        (answer,) = (one for status, one in operation["responses"].items() if status != "default")
        json_answer = answer["content"].get("application/json")
        if json_answer is not None:
            assert json_answer["example"] is not None, f"{name} has no example of an answer"


def test_every_operation_refuses_in_one_form(
    document: dict[str, Any], described: Operations
) -> None:
    form = {"$ref": "#/components/schemas/Problem"}
    for name, operation in described.items():
        assert [one for one in operation["responses"] if one >= "400"] == ["default"], name
        content = operation["responses"]["default"]["content"]
        assert [*content] == ["application/problem+json"]
        assert content["application/problem+json"]["schema"] == form
    assert set(document["components"]["schemas"]["Problem"]["required"]) == {
        "type", "title", "status", "code",
    }  # fmt: skip


def test_the_examples_are_what_is_sent_and_what_is_answered(
    server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running(server, template, tmp_path_factory.mktemp("home")) as own:
        told = tell(own)
    if os.environ.get("API_EXAMPLES") == "write":
        write(told)
    known = examples()
    assert set(told) == set(known) - UNTOLD
    for name, (sent, found) in told.items():
        example = known[name]
        assert found.headers["content-type"].split(";")[0] == example.media, name
        if name not in CUT:
            assert sent == example.request, name
        if example.media == "application/json":
            assert shape(found.json()) == shape(example.answer), f"{name}: {found.text}"


def test_nothing_that_the_document_allows_is_a_fault(api: Api, document: dict[str, Any]) -> None:
    """A few made-up requests an operation: each is answered, or refused in the one form."""
    wrong: list[tuple[str, int, str]] = []

    def answered(case: schemathesis.Case[Any]) -> None:
        sent = case.as_transport_kwargs(base_url="http://test")
        headers = {name.lower(): value for name, value in dict(sent.pop("headers") or {}).items()}
        headers.pop("user-agent", None)
        headers["authorization"] = f"Bearer {api.admin}"
        if isinstance(sent.get("data"), str | bytes):
            sent["content"] = sent.pop("data")
        sent.pop("cookies", None)
        method, path = sent.pop("method"), sent.pop("url").removeprefix("http://test")
        found = api.send(method, path, headers=headers, **sent)
        told = found.headers.get("content-type", "").split(";")[0]
        if found.status_code >= 500 or (not found.is_success and told != PROBLEM):
            wrong.append((case.operation.label, found.status_code, found.text))

    few = settings(
        max_examples=EXAMPLES_EACH, phases=[Phase.generate], database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for one in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(one, Ok)
        few(given(one.ok().as_strategy())(answered))()
    assert not wrong


def write(told: Told) -> None:
    """Make the examples anew; what is not told, or is cut by hand, stays as it is."""
    kept = json.loads(FILE.read_bytes())
    for name, (sent, found) in told.items():
        media = found.headers["content-type"].split(";")[0]
        if name in CUT:
            sent = kept[name]["request"]  # noqa: PLW2901 - the part that is shown
        made = {} if sent is None else {"request": sent}
        made |= {"answer": first(found.json())} if media.endswith("/json") else {"media": media}
        kept[name] = made
    gone = kept.keys() - told.keys() - UNTOLD
    kept = {name: kept[name] for name in sorted(kept.keys() - gone)}
    FILE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def first(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value with the first of each list only."""
    if isinstance(value, dict):
        return {name: first(inner) for name, inner in value.items()}
    return [first(one) for one in value[:1]] if isinstance(value, list) else value
