"""What-if tells the truth of the past: at today's prices it is what was billed, to the cent."""

import re

import pytest

from convergio.infra.db import Database
from convergio.kernel.periods import Period
from convergio.simulation import whatif
from convergio.simulation.whatif import Compared
from tests.fakes.tempted import CATALOG, START, Tempted


def compared(shop: Tempted, source: bytes, during: Period) -> list[Compared]:
    with shop.database.snapshot() as tx:
        return list(whatif.compared(tx, shop.keyring, source, during=during))


@pytest.mark.parametrize("seed", range(1, 9))
def test_the_past_billed_again_is_what_was_billed(database: Database, seed: int) -> None:
    shop = Tempted(database, seed, taxed=seed % 2 == 0)
    during = Period(START, shop.live())
    for one in compared(shop, CATALOG, during):
        assert one.problem is None
        assert (one.now, one.now_tax) == (one.billed, one.billed_tax), one.customer
        assert (one.then, one.then_tax) == (one.now, one.now_tax)
    assert sum(one.billed.minor for one in compared(shop, CATALOG, during)) > 0
    # the same prices under other versions go the way of other prices, and change nothing
    renamed = re.sub(rb"(\{|- )key: (\w+_\w+)(,|\n)", rb"\1key: \2, version: 2\3", CATALOG)
    renamed = re.sub(rb", version: 2\n(\s+)name", rb"\n\1version: 2\n\1name", renamed)
    for one in compared(shop, renamed, during):
        assert (one.then, one.then_tax) == (one.now, one.now_tax), one.customer
