"""`GET /v1/usage` by group and page by page: every bucket once, in order."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from convergio.api.app import inside
from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.identity import actions as identity
from convergio.identity.model import Scope
from convergio.infra.clock import VirtualClock
from convergio.infra.settings import Settings
from convergio.metering.model import Event
from convergio.wiring import opened

OLD_STYLE = "ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning"
pytestmark = pytest.mark.filterwarnings(OLD_STYLE)
NOW = datetime(2025, 1, 15, 12, tzinfo=UTC)
CATALOG = b"""
currency: usd
events: [{type: job}]
meters: [{key: work, name: Work, event: job, value: size, default: 1, group_by: [model]}]
plans: []
"""


def test_pages_by_group_hold_every_bucket_once(dsn: str, tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path))
    with opened(settings, url=dsn, clock=VirtualClock(NOW), example=False) as product:
        with product.database.transaction() as tx:
            catalog.apply(tx, CATALOG, now=NOW)
            customers.create_many(tx, ["acme"], now=NOW)
            key = identity.create(tx, name="test", scopes=[Scope.USAGE_READ], now=NOW).secret
        events = [
            Event(
                f"e{number}",
                "test",
                "job",
                "acme",
                time=NOW - timedelta(days=number % 3),
                data={"size": str(number), "model": f"m|{number % 2}"},
            )
            for number in range(12)
        ]
        product.ingestor.ingest(events, now=NOW)
        with TestClient(inside(product)) as client:
            client.headers["authorization"] = f"Bearer {key}"
            asked: dict[str, Any] = {"meter": "work", "by": "day", "by_group": "true"}
            whole = client.get("/v1/usage", params=asked).json()
            pages: list[dict[str, Any]] = []
            following: str | None = None
            while len(pages) < 10:
                cursor: dict[str, Any] = {"after": following} if following else {}
                found = client.get("/v1/usage", params={**asked, "limit": 2, **cursor}).json()
                pages += found["usage"]
                following = found["next"]
                if following is None:
                    break
            refused = client.get("/v1/usage", params={**asked, "limit": 100_000})
    assert whole["next"] is None
    assert pages == whole["usage"]
    assert [row["group"] for row in pages] == ['["m|0"]', '["m|1"]'] * 3
    assert sum(int(row["quantity"]) for row in pages) == sum(range(12))
    assert refused.status_code == 422
