"""The catalog file: what it means when it is right, and one line of help when it is wrong."""

import re
import tracemalloc
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from convergio.catalog.actions import EXAMPLE
from convergio.catalog.model import (
    MENDS,
    CatalogFile,
    ConditionLine,
    Definition,
    EventLine,
    Filter,
    MeterLine,
    PlanLine,
    PriceLine,
    Quota,
    QuotaLine,
)
from convergio.catalog.rules import definition
from convergio.infra import strict_yaml
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import Interval
from convergio.rating.model import Flat, Graduated, Seat, Unit

GOOD = """\
currency: usd
events:
  - type: call
    keep: [region]
meters:
  - key: calls
    name: Calls
    event: call
    value: amount
    default: 1
    where:
      status: {in: [ok, done]}
plans:
  - key: basic
    name: Basic
    prices:
      - key: fee
        name: Fee
        charge: {model: flat, amount: 1.10}
      - key: calls
        name: Calls
        meter: calls
        quota: {limit: 5, hard: true}
        charge: {model: unit, unit: 0.000000000000001, included: 5}
"""


MEND = re.compile(
    r"\b(write|add|remove|name|list|make|give|put|end|correct|keep|indent|save|split|flatten) "
)


def read(source: bytes | str) -> Definition:
    data = source.encode() if isinstance(source, str) else source
    return definition(strict_yaml.typed(strict_yaml.read(data), CatalogFile, mends=MENDS))


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def refused(source: bytes | str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        read(source)
    line = str(caught.value)
    assert "\n" not in line
    assert re.search(r"[\x00-\x1f\x7f]", line) is None
    assert len(line) < 300
    return caught.value


def test_a_good_file_resolves_every_reference() -> None:
    found = read(GOOD)
    assert found.events == {"call": frozenset({"region"})}
    meter = found.meters["calls"]
    assert meter.aggregation == "sum"
    assert meter.default == Decimal(1)
    assert meter.filters == (Filter("status", "in", ("done", "ok")),)
    fee, calls = found.plans["basic"].prices
    assert (fee.kind, fee.version, fee.interval, fee.currency) == (
        "fixed",
        1,
        Interval.MONTH,
        "usd",
    )
    assert (calls.kind, calls.meter_key) == ("usage", "calls")
    assert calls.quota == Quota(Decimal(5), hard=True)


def test_amounts_stay_the_text_that_was_written() -> None:
    fee, calls = read(GOOD).plans["basic"].prices
    assert fee.charge == Flat(amount="1.10")
    assert calls.charge == Unit(unit="0.000000000000001", included="5")


def test_a_price_may_name_its_own_currency() -> None:
    text = changed("currency: usd\n", "").replace("name: Fee", "name: Fee\n        currency: jpy")
    text = text.replace("meter: calls", "meter: calls\n        currency: jpy")
    assert {price.currency for price in read(text).plans["basic"].prices} == {"jpy"}


def test_null_opens_the_last_tier() -> None:
    tiers = "[{up_to: 5, unit: 1}, {up_to: null, unit: 0.5}]"
    text = changed("{model: flat, amount: 1.10}", f"{{model: graduated, tiers: {tiers}}}")
    found = read(text).plans["basic"].prices[0].charge
    assert isinstance(found, Graduated)
    assert [tier.up_to for tier in found.tiers] == ["5", None]


def test_the_example_has_the_four_plans_and_the_four_meters() -> None:
    found = read(EXAMPLE.read_bytes())
    assert list(found.meters) == ["questions", "images", "tokens_in", "tokens_out"]
    assert list(found.plans) == ["free", "pro", "team", "enterprise"]
    assert found.plans["free"].prices[0].quota == Quota(Decimal(50), hard=True)
    fee, questions = found.plans["pro"].prices
    assert fee.charge == Flat(amount="6.99")
    assert questions.charge == Unit(unit="0.01", included="500")
    assert isinstance(found.plans["team"].prices[0].charge, Seat)
    commitment = found.plans["enterprise"].prices[0].charge
    assert isinstance(commitment, Unit)
    assert commitment.minimum == "500.00"


BAD_VALUES = [
    ("currency: usd", "currency: xyz", "unknown_currency", "currency"),
    ("currency: usd", "currency: USD", "unknown_currency", "currency"),
    ("currency: usd\n", "", "missing_currency", "plans[0].prices[0].currency"),
    ("currency: usd", "currancy: usd", "unknown_field", "currancy"),
    ("meter: calls", "meter: cals", "unknown_meter", "plans[0].prices[1].meter"),
    ("event: call", "event: cal", "unknown_event", "meters[0].event"),
    ("    value: amount\n", "", "missing_value", "meters[0].value"),
    ("value: amount", "value: amount\n    aggregation: count", "unexpected_value",
     "meters[0].value"),
    ("    value: amount", "    aggregation: count", "unexpected_value", "meters[0].default"),
    ("value: amount", "value: amount\n    aggregation: median", "bad_value",
     "meters[0].aggregation"),
    ("default: 1", "default: -1", "bad_quantity", "meters[0].default"),
    ("default: 1", "default: 1e3", "bad_quantity", "meters[0].default"),
    ("{in: [ok, done]}", "{}", "empty_condition", "meters[0].where.status"),
    ("{in: [ok, done]}", "{in: ok}", "bad_value", "meters[0].where.status.in"),
    ("{in: [ok, done]}", "{in: []}", "bad_value", "meters[0].where.status.in"),
    ("{in: [ok, done]}", "{like: ok}", "unknown_field", "meters[0].where.status.like"),
    ("{in: [ok, done]}", "{exists: maybe}", "bad_value", "meters[0].where.status.exists"),
    ("status: {in", "'sta tus': {in", "bad_value", "meters[0].where"),
    ("key: basic", "key: Basic", "bad_value", "plans[0].key"),
    ("key: basic", 'key: "basic\\n"', "bad_value", "plans[0].key"),
    ("name: Basic", 'name: "Ba\\nsic"', "bad_text", "plans[0].name"),
    ("name: Basic", 'name: "Ba\\u202esic"', "bad_text", "plans[0].name"),
    ("name: Basic", "name: ''", "bad_text", "plans[0].name"),
    ("name: Basic", "name: Basic\n    description: " + "x" * 2001, "bad_text",
     "plans[0].description"),
    ("name: Calls\n    event", "name: '" + "x" * 201 + "'\n    event", "bad_text",
     "meters[0].name"),
    ("name: Basic", "name: null", "bad_value", "plans[0].name"),
    ("    name: Basic\n", "", "missing_name", "plans[0].name"),
    ("key: fee", "key: calls", "duplicate_key", "plans[0].prices[1].key"),
    ("name: Fee", "name: Fee\n        version: 0", "bad_value", "plans[0].prices[0].version"),
    ("name: Fee", "name: Fee\n        version: 1.5", "bad_value", "plans[0].prices[0].version"),
    ("name: Fee", "name: Fee\n        interval: fortnight", "bad_value",
     "plans[0].prices[0].interval"),
    ("name: Fee", "name: Fee\n        currency: eur", "currency_incomplete",
     "plans[0].prices"),
    ("name: Fee", "name: Fee\n        quota: {limit: 1}", "quota_without_meter",
     "plans[0].prices[0].quota"),
    ("name: Fee", "name: Fee\n        meter: calls", "meter_priced_twice",
     "plans[0].prices[1].meter"),
    ("limit: 5", "limit: lots", "bad_quantity", "plans[0].prices[1].quota.limit"),
    ("hard: true", "hard: perhaps", "bad_value", "plans[0].prices[1].quota.hard"),
    ("model: flat", "model: flatt", "bad_value", "plans[0].prices[0].charge.model"),
    ("model: flat, ", "", "missing_model", "plans[0].prices[0].charge.model"),
    ("amount: 1.10", "amount: 1.1e1", "bad_value", "plans[0].prices[0].charge.amount"),
    ("amount: 1.10", "amount: .inf", "bad_value", "plans[0].prices[0].charge.amount"),
    ("amount: 1.10", "amount: -1", "bad_value", "plans[0].prices[0].charge.amount"),
    ("amount: 1.10", "amount: null", "bad_value", "plans[0].prices[0].charge.amount"),
    ("unit: 0.000000000000001", "unit: 0.0000000000000001", "bad_value",
     "plans[0].prices[1].charge.unit"),
    ("unit: 0.000000000000001", "unit: 1" + "0" * 23, "bad_value",
     "plans[0].prices[1].charge.unit"),
    ("model: unit", "model: seat", "seat_with_meter", "plans[0].prices[1].meter"),
    ("{model: unit, unit: 0.000000000000001, included: 5}",
     "{model: graduated, tiers: [{up_to: 5, unit: 1}]}", "bad_value",
     "plans[0].prices[1].charge.tiers"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "field"), BAD_VALUES)
def test_a_wrong_value_names_its_field_and_a_mend(
    old: str, new: str, code: str, field: str
) -> None:
    error = refused(changed(old, new))
    assert (error.code, error.field) == (code, field)
    assert MEND.search(error.detail), error.detail


BAD_TEXTS = [
    (b"", "empty", "line 1"),
    (b"# only a comment\n", "empty", "line 1"),
    (b"- a\n- b\n", "bad_value", "line 1"),
    (b"just text", "bad_value", "line 1"),
    (b"a: &x [1]\nb: *x\n", "alias_refused", "a"),
    (b"a: 1\nb: {c: [0, *x]}\n", "alias_refused", "b.c[1]"),
    (b"plans: &p\n  - *p\n", "alias_refused", "plans"),
    (b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "alias_refused", "a"),
    (b"a: !!python/object/apply:os.system [id]\n", "tag_refused", "a"),
    (b"a: !!binary aGk=\n", "tag_refused", "a"),
    (b"a: 1\na: 2\n", "duplicate_key", "a"),
    (b"plans:\n  - key: x\n    key: y\n", "duplicate_key", "plans[0].key"),
    (b"currency: usd\n---\ncurrency: eur\n", "second_document", "line 2"),
    (b"plans:\n\t- key: x\n", "tab_indent", "line 2"),
    (b"plans:\n  - key: x\n\t  name: y\n", "tab_indent", "line 3"),
    (b"plans: [\n", "malformed", "line 2"),
    (b"a: b: c\n", "malformed", "line 1"),
    (b'a: "\\ud800"\n', "malformed", "line 1"),
    (b"a: 1\nb: \x00\n", "bad_character", "line 2"),
    (b'plans:\n  - key: "a\\0b"\n', "bad_character", "plans[0].key"),
    (b'a: "\\e[31m"\n', "bad_character", "a"),
    (b"a: \x1b[31m\n", "bad_character", "line 1"),
    (b"currency: usd\nname: \xff\xfe\n", "not_utf8", "line 2"),
    ("currency: usd".encode("utf-16"), "not_utf8", "line 1"),
    (b"? [a]\n: 1\n", "bad_key", "line 1"),
    (b"[" * 5000, "too_deep", None),
    (b"{a: " * 5000, "too_deep", None),
    (b"#" * ((1 << 20) + 1), "too_large", "file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "code", "field"),
    BAD_TEXTS,
    ids=[f"{code}-{place}" for place, (_, code, _) in enumerate(BAD_TEXTS)],
)
def test_a_text_that_is_not_plain_yaml_is_refused_in_one_line(
    source: bytes, code: str, field: str | None
) -> None:
    error = refused(source)
    assert error.code == code
    assert field is None or error.field == field
    assert MEND.search(error.detail), error.detail


def test_a_byte_order_mark_and_windows_line_ends_are_accepted() -> None:
    data = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    assert read(data) == read(GOOD)


def test_yaml_guesses_nothing() -> None:
    found = strict_yaml.read(b"a: [1.10, no, 0x10, 2025-01-01, ~, 'null', '', 1_000]")
    assert found == {"a": ["1.10", "no", "0x10", "2025-01-01", None, "null", "", "1_000"]}


def test_a_megabyte_of_keys_or_brackets_neither_hangs_nor_swells() -> None:
    tracemalloc.start()
    try:
        wide = b"where: {" + b",".join(b"k%d: x" % i for i in range(60_000)) + b"}"
        assert refused(b"meters: [{key: a, name: a, event: e, " + wide + b"}]").code == "bad_value"
        refused(b"[" * (1 << 20))
        refused(b"- [" * (1 << 18))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_the_shown_value_of_a_refusal_is_short_and_printable() -> None:
    error = refused(changed("model: flat", 'model: "' + "x\\u2028\\u0085" * 500 + '"'))
    assert "\u2028" not in str(error)
    assert "\u0085" not in str(error)


def test_the_mends_name_every_field_of_the_file() -> None:
    lines = (CatalogFile, EventLine, MeterLine, ConditionLine, PlanLine, PriceLine, QuotaLine)
    names = {field.encode_name for line in lines for field in msgspec.structs.fields(line)}
    assert names <= set(MENDS)


def test_the_catalog_of_the_how_to_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "catalog.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    found = read(text)
    assert [price.kind for price in found.plans["pro"].prices] == ["fixed", "usage"]
