"""The difference of file and stored catalog: what is shown, and what is refused."""

from dataclasses import asdict, replace
from uuid import UUID

import pytest

from convergio.catalog.model import (
    MENDS,
    Catalog,
    CatalogFile,
    Change,
    Definition,
    Entry,
    FieldChange,
    Meter,
    Plan,
    Price,
)
from convergio.catalog.rules import (
    definition,
    difference,
    dropped,
    in_use,
    kept,
    outcome,
    replaced,
    unstored,
)
from convergio.infra import strict_yaml
from convergio.kernel.errors import Conflict

FILE = """\
currency: usd
events:
  - type: call
meters:
  - {key: calls, name: Calls, event: call, value: amount, where: {status: {not_in: [failed]}}}
plans:
  - key: basic
    name: Basic
    prices:
      - {key: basic_fee, name: Fee, charge: {model: flat, amount: 5}}
  - key: pro
    name: Pro
    prices:
      - {key: pro_fee, name: Fee, charge: {model: flat, amount: 9.90}}
      - key: pro_calls
        name: Calls
        meter: calls
        charge: {model: graduated, tiers: [{up_to: 10, unit: 0}, {up_to: null, unit: 0.01}]}
"""
EMPTY = Catalog(
    version=0, event_types={}, declared={}, meters={}, plans={}, archived={}, prices_by_id={}
)


def file(text: str) -> Definition:
    plain = strict_yaml.read(text.encode())
    return definition(strict_yaml.typed(plain, CatalogFile, mends=MENDS))


def changed(*pairs: tuple[str, str]) -> Definition:
    text = FILE
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return file(text)


def stored(wanted: Definition, *, version: int = 1) -> Catalog:
    """Return the catalog as it is after the file was applied."""
    plans = {}
    for plan in wanted.plans.values():
        prices = tuple(
            Price(
                price_id=UUID(int=sum(price.label.encode())),
                **{name: getattr(price, name) for name in price.__dataclass_fields__},
            )
            for price in plan.prices
        )
        plans[plan.key] = Plan(
            key=plan.key, name=plan.name, description=plan.description, prices=prices
        )
    meters = {
        meter.key: Meter(
            meter_id=place, **{name: getattr(meter, name) for name in meter.__dataclass_fields__}
        )
        for place, meter in enumerate(wanted.meters.values())
    }
    return Catalog(
        version=version,
        event_types=kept(wanted.events, meters.values()),
        declared=wanted.events,
        meters=meters,
        plans=plans,
        archived={},
        prices_by_id={p.price_id: p for plan in plans.values() for p in plan.prices},
    )


def news(change: Change) -> dict[tuple[str, str], tuple[str, dict[str, tuple[str | None, ...]]]]:
    return {
        (entry.what, entry.key): (
            entry.state,
            {field.field: (field.old, field.new) for field in entry.fields},
        )
        for entry in change.entries
        if entry.state != "unchanged"
    }


def test_everything_is_added_to_an_empty_catalog() -> None:
    change = difference(EMPTY, file(FILE))
    assert change.version == 1
    assert {entry.state for entry in change.entries} == {"added"}
    assert [(entry.what, entry.key) for entry in change.entries] == [
        ("event", "call"),
        ("meter", "calls"),
        ("price", "basic_fee"),
        ("price", "pro_fee"),
        ("price", "pro_calls"),
        ("plan", "basic"),
        ("plan", "pro"),
    ]


def test_the_same_file_changes_nothing_and_keeps_the_version() -> None:
    change = difference(stored(file(FILE), version=7), file(FILE))
    assert change.is_empty
    assert change.version == 7
    assert {entry.state for entry in change.entries} == {"unchanged"}


def test_numbers_that_are_equal_are_not_a_change() -> None:
    same = changed(("amount: 9.90", "amount: 9.9"), ("unit: 0.01}", "unit: 0.0100}"))
    assert difference(stored(file(FILE)), same).is_empty


def test_a_new_version_shows_each_field_before_and_after() -> None:
    wanted = changed(
        ("pro_calls", "pro_calls\n        version: 2"), ("unit: 0.01}", "unit: 0.02, flat: 1}")
    )
    change = difference(stored(file(FILE)), wanted)
    assert change.version == 2
    assert news(change) == {
        ("price", "pro_calls"): (
            "changed",
            {
                "version": ("1", "2"),
                "charge.tiers[1].flat": ("0", "1"),
                "charge.tiers[1].unit": ("0.01", "0.02"),
            },
        ),
        ("plan", "pro"): (
            "changed",
            {"prices": ("pro_fee v1, pro_calls v1", "pro_fee v1, pro_calls v2")},
        ),
    }
    assert [price.label for price in unstored(stored(file(FILE)), wanted)] == ["pro_calls v2"]
    assert replaced(stored(file(FILE)), wanted) == {}


def test_another_definition_with_the_same_version_replaces_the_stored_price() -> None:
    before, wanted = stored(file(FILE)), changed(("amount: 9.90", "amount: 12"))
    (path, price), *others = replaced(before, wanted).items()
    assert (path, price.label, others) == ("plans[1].prices[0]", "pro_fee v1", [])
    assert [price.label for price in unstored(before, wanted)] == ["pro_fee v1"]
    error = in_use(path, price, before, wanted)
    assert (error.code, error.field) == ("price_in_use", "plans[1].prices[0].charge.amount")
    assert "give it version 2" in error.detail


def test_the_mend_for_a_price_in_use_is_the_next_free_version() -> None:
    before = stored(file(FILE))
    fee = before.plans["pro"].prices[0]
    newer = replace(fee, price_id=UUID(int=1), version=4)
    before = replace(before, prices_by_id={**before.prices_by_id, newer.price_id: newer})
    wanted = changed(("amount: 9.90", "amount: 12"))
    assert "version 5" in in_use("plans[1].prices[0]", fee, before, wanted).detail


def test_a_version_below_a_stored_one_is_refused_unless_it_is_stored() -> None:
    wanted = changed(("{key: pro_fee,", "{key: pro_fee, version: 3,"))
    before = stored(wanted)
    with pytest.raises(Conflict) as caught:
        difference(before, file(FILE))
    assert caught.value.code == "version_goes_back"
    assert caught.value.field == "plans[1].prices[0].version"
    first = stored(file(FILE)).plans["pro"].prices[0]
    both = replace(before, prices_by_id={**before.prices_by_id, first.price_id: first})
    assert news(difference(both, file(FILE)))["price", "pro_fee"] == (
        "changed",
        {"version": ("3", "1")},
    )


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("value: amount", "value: other", "meters[0].value"),
        ("value: amount", "aggregation: count", "meters[0].aggregation"),
        ("value: amount", "value: amount, default: 1", "meters[0].default"),
        ("[failed]", "[failed, lost]", "meters[0].where.status.not_in"),
        ("not_in: [failed]", "in: [done]", "meters[0].where.status.in"),
        ("{not_in: [failed]}", "{not_in: [failed], exists: true}", "meters[0].where.status.exists"),
        (", where: {status: {not_in: [failed]}}", "", "meters[0].where.status.not_in"),
    ],
)
def test_what_a_meter_counts_cannot_change(old: str, new: str, field: str) -> None:
    with pytest.raises(Conflict) as caught:
        difference(stored(file(FILE)), changed((old, new)))
    assert (caught.value.code, caught.value.field) == ("meter_changed", field)
    assert "new key" in caught.value.detail


def test_the_name_of_a_meter_can_change() -> None:
    change = difference(stored(file(FILE)), changed(("calls, name: Calls", "calls, name: Hits")))
    assert news(change) == {("meter", "calls"): ("changed", {"name": ("Calls", "Hits")})}


def test_what_the_file_lacks_is_removed_archived_or_retired() -> None:
    wanted = file(FILE[: FILE.index("  - key: pro\n")])
    before = stored(file(FILE))
    change = difference(before, wanted)
    assert {key: state for key, (state, _) in news(change).items()} == {
        ("price", "pro_fee"): "removed",
        ("price", "pro_calls"): "removed",
        ("plan", "pro"): "removed",
    }
    assert {price.key for price in dropped(before, wanted)} == {"pro_fee", "pro_calls"}
    after = news(outcome(change, archived={"pro"}, retired={"pro_fee", "basic_fee"}))
    assert {key: state for key, (state, _) in after.items()} == {
        ("price", "pro_fee"): "retired",
        ("price", "pro_calls"): "removed",
        ("plan", "pro"): "archived",
    }


def test_an_archived_plan_that_comes_back_is_a_change() -> None:
    before = stored(file(FILE))
    pro = replace(before.plans["pro"], prices=(), archived=True)
    before = replace(before, plans={"basic": before.plans["basic"]}, archived={"pro": pro})
    state, fields = news(difference(before, file(FILE)))["plan", "pro"]
    assert state == "changed"
    assert fields["archived"] == ("true", None)


def test_plans_that_change_places_are_one_change_and_a_new_plan_is_no_such_change() -> None:
    basic, pro = FILE.index("  - key: basic"), FILE.index("  - key: pro\n")
    swapped = file(FILE[:basic] + FILE[pro:] + FILE[basic:pro])
    change = difference(stored(file(FILE)), swapped)
    assert [entry for entry in change.entries if entry.state != "unchanged"] == [
        Entry("order", "plans", "changed", (FieldChange("plans", "basic, pro", "pro, basic"),))
    ]
    more = file(FILE[:basic] + "  - {key: free, name: Free}\n" + FILE[basic:])
    assert set(news(difference(stored(file(FILE)), more))) == {("plan", "free")}


def test_values_with_commas_are_not_confused() -> None:
    with pytest.raises(Conflict):
        difference(stored(changed(("[failed]", "['a, b']"))), changed(("[failed]", "[a, b]")))


def test_a_change_is_plain_data() -> None:
    assert asdict(Change(1, (Entry("plan", "a", "added"),)))["entries"][0]["key"] == "a"
