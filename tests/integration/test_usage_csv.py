"""`GET /v1/usage` as CSV: asked for by parameter or header, numbers as numbers, no formulas."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from convergio.api import tables
from convergio.api.app import inside
from convergio.identity import actions as identity
from convergio.identity.model import Scope
from convergio.infra.clock import VirtualClock
from convergio.infra.settings import Settings
from convergio.wiring import opened
from tests.fakes import usage
from tests.fakes.meters import event

# how all handlers declare their parameters is old style to this Litestar; not what this page tests
OLD_STYLE = "ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning"
pytestmark = pytest.mark.filterwarnings(OLD_STYLE)
NOW = datetime(2025, 1, 15, 12, tzinfo=UTC)


@pytest.fixture
def client(dsn: str, tmp_path: Path) -> Iterator[TestClient[Any]]:
    settings = Settings(home=str(tmp_path))
    with opened(settings, url=dsn, clock=VirtualClock(NOW)) as product:
        usage.make(product.database, "acme")
        with product.database.transaction() as tx:
            made = identity.create(tx, name="test", scopes=[Scope.USAGE_READ], now=NOW)
        sent = event("e1", time=NOW, data={"quantity": "2.5", "status": "ok"})
        assert usage.send(product.ingestor, sent, now=NOW) == ["accepted"]
        with TestClient(inside(product)) as found:
            found.headers["authorization"] = f"Bearer {made.secret}"
            yield found


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("&format=csv", {}),
        ("", {"accept": "text/csv"}),
        ("", {"accept": "text/csv;q=0.9, application/json;q=0.1"}),
        ("&format=csv", {"accept": "application/json"}),
    ],
)
def test_usage_comes_as_csv_where_it_is_asked_for(
    client: TestClient[Any], query: str, headers: dict[str, str]
) -> None:
    answer = client.get(f"/v1/usage?meter=questions&by=day{query}", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; header=present; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    rows = list(csv.reader(StringIO(answer.text, newline="")))
    assert rows == [["start", "quantity", "events"], ["2025-01-15T00:00:00Z", "2.5", "1"]]
    assert answer.text.count("\r\n") == 2


@pytest.mark.parametrize(
    ("query", "accept"), [("", "*/*"), ("", "application/json"), ("&format=json", "text/csv")]
)
def test_usage_stays_json_otherwise(client: TestClient[Any], query: str, accept: str) -> None:
    answer = client.get(f"/v1/usage?meter=questions{query}", headers={"accept": accept})
    assert answer.json()["usage"] == [
        {"start": "2025-01-01T00:00:00Z", "quantity": "2.5", "events": 1}
    ]


def test_a_format_that_does_not_exist_is_refused(client: TestClient[Any]) -> None:
    answer = client.get("/v1/usage?meter=questions&format=xlsx")
    assert answer.status_code == 422


def test_an_error_is_a_problem_document_also_for_csv(client: TestClient[Any]) -> None:
    answer = client.get("/v1/usage?meter=nothing&format=csv")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_the_document_says_that_usage_comes_as_csv_too(client: TestClient[Any]) -> None:
    document = client.app.openapi_schema.to_schema()
    content = document["paths"]["/v1/usage"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/csv"}


def test_cells_are_neutral_text_and_plain_numbers() -> None:
    cells = [
        "=HYPERLINK(1)",
        "+1+1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "-1",
        "-1.5",
        "-1+1",
        7,
        None,
        "a",
    ]
    answer = tables.as_csv(["cell"], [{"cell": cell} for cell in cells], name="x")
    found = [row[0] for row in csv.reader(StringIO(answer.content.decode(), newline=""))][1:]
    assert found == [
        "'=HYPERLINK(1)", "'+1+1", "'@SUM(A1)", "'\t=1", "'\r=1", "-1", "-1.5", "'-1+1", "7", "",
        "a",
    ]  # fmt: skip
