"""`convergio rate`: its input and output contract, and one-line errors that name the field."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convergio.cli.rate import rated_text
from convergio.kernel.errors import Invalid

GRADUATED = {
    "currency": "usd",
    "charge": {
        "model": "graduated",
        "tiers": [{"up_to": "5", "flat": "100", "unit": "0"}, {"up_to": None, "unit": "1"}],
        "included": "0",
    },
    "quantity": "22",
    "proration": {
        "full": ["2024-01-01T00:00:00Z", "2024-04-01T00:00:00Z"],
        "service": ["2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"],
    },
}
UNIT = {"currency": "usd", "charge": {"model": "unit", "unit": "0.5"}, "quantity": "3"}
FLAT = {"currency": "USD", "charge": {"model": "flat", "amount": "20"}}


def rated(value: object) -> Any:  # noqa: ANN401 - a JSON object or array
    return rated_text(json.dumps(value).encode())


def refused(source: str) -> str:
    with pytest.raises(Invalid) as caught:
        rated_text(source.encode())
    return str(caught.value)


def run(*arguments: str, source: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "convergio.cli.main", "rate", *arguments]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False)


def test_a_charge_gives_its_total_and_lines_as_text() -> None:
    assert rated(GRADUATED) == {
        "total": "51.07",
        "lines": [
            {
                "description": "Tier 1 (up to 5), flat fee (34.07% of the period)",
                "quantity": "1",
                "unit": "100",
                "amount": "34.07",
            },
            {
                "description": "Tier 1 (up to 5)",
                "quantity": "5",
                "unit": "0",
                "amount": "0.00",
            },
            {
                "description": "Tier 2 (above 5)",
                "quantity": "17",
                "unit": "1",
                "amount": "17.00",
            },
        ],
    }


def test_an_array_gives_an_array_in_the_same_order() -> None:
    assert [item["total"] for item in rated([GRADUATED, UNIT, FLAT])] == ["51.07", "1.50", "20.00"]
    assert rated([]) == []


def test_a_whole_json_number_is_exact_and_taken() -> None:
    source = '{"currency":"jpy","charge":{"model":"unit","unit":7},"quantity":12345678901234567890}'
    assert rated_text(source.encode())["total"] == "86419752308641975230"


def test_a_line_for_more_than_one_unit_says_for_how_many() -> None:
    request = UNIT | {"charge": {"model": "unit", "unit": "0.0375", "per": "1000000"}}
    assert rated(request)["lines"][0]["per"] == "1000000"


def test_what_is_billed_already_is_taken_off_on_a_line() -> None:
    found = rated(FLAT | {"billed": "12.50"})
    assert found["total"] == "7.50"
    assert [line["amount"] for line in found["lines"]] == ["20.00", "-12.50"]
    assert rated(FLAT | {"billed": "30"})["total"] == "-10.00"


def test_a_zero_length_service_bills_nothing() -> None:
    full = ["2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"]
    empty = {"full": full, "service": ["2025-01-15T00:00:00Z", "2025-01-15T00:00:00Z"]}
    assert rated(FLAT | {"proration": empty})["total"] == "0.00"


def test_offsets_are_counted_in_utc() -> None:
    full = ["2025-03-01T00:00:00+01:00", "2025-04-01T00:00:00+02:00"]
    half = ["2025-03-01T00:00:00+01:00", "2025-03-16T12:30:00+01:00"]
    exact = {"full": full, "service": half}
    # 372.5 of 743 hours, for this March is an hour short; by the clock it would be 10.01
    assert rated(FLAT | {"proration": exact})["total"] == "10.03"


CASES = [
    ('{"currency":"usd","charge":{"model":"unit","unit":0.5},"quantity":"1"}', "charge.unit: "),
    ('{"currency":"usd","charge":{"model":"unit","unit":1e2},"quantity":"1"}', "charge.unit: "),
    ('{"currency":"usd","charge":{"model":"unit","unit":NaN},"quantity":"1"}', "charge.unit: "),
    ('{"currency":"usd","charge":{"model":"unit","unit":true},"quantity":"1"}', "charge.unit: "),
    ('{"currency":"usd","charge":{"model":"unit","unit":"1"},"quantity":1.5}', "quantity: "),
    ('{"currency":"usd","charge":{"model":"unit","unit":"1"},"quantity":"-1"}', "quantity: "),
    ('{"currency":"usd","charge":{"model":"unit","unit":"1"},"quantity":-1}', "quantity: "),
    ('{"currency":"usd","charge":{"model":"unit","unit":"1"},"quantity":"NaN"}', "quantity: "),
    ('{"currency":"usd","charge":{"model":"unit","unit":"1"}}', "quantity: "),
    ('{"currency":"usd","charge":{"model":"unit"},"quantity":"1"}', "charge.unit: it is missing"),
    ('{"currency":"usd","charge":{"model":"stair"},"quantity":"1"}', "charge.model: write one of"),
    ('{"currency":"usd","charge":{"unit":"1"},"quantity":"1"}', "charge.model: write one of"),
    ('{"currency":"usd","charge":{"model":"flat","amount":"1","tax":"2"}}', "charge.tax: unknown"),
    ('{"currency":"usd","charge":{"model":"flat","amount":"1"},"tax":"2"}', "tax: unknown field"),
    ('{"currency":"xxx","charge":{"model":"flat","amount":"1"}}', "currency: 'xxx'"),
    ('{"currency":"\\ud800","charge":{"model":"flat","amount":"1"}}', "currency: "),
    ('{"charge":{"model":"flat","amount":"1"}}', "currency: it is missing"),
    ('{"currency":"usd","charge":{"model":"flat","amount":"1"},"billed":"0.001"}', "billed: "),
    (('{"currency":"usd","charge":{"model":"volume","tiers":[{"up_to":"5"},{"up_to":2.5},{}]},'
     '"quantity":"1"}'), "charge.tiers[1].up_to: "),
    ('{"currency":"usd","charge":{"model":"volume","tiers":[{"flat":"x"}]},"quantity":"1"}',
     "charge.tiers[0].flat: "),
    (('{"currency":"usd","charge":{"model":"flat","amount":"1"},"proration":'
     '{"full":["2024-01-01","2024-02-01"],"service":["2024-01-01","2024-02-01"]}}'),
     "proration.full[0]: "),
    (('{"currency":"usd","charge":{"model":"flat","amount":"1"},"proration":'
     '{"full":["2024-01-01T00:00:00Z"],"service":[]}}'), "proration.full: write two instants"),
    (('{"currency":"usd","charge":{"model":"flat","amount":"1"},"proration":'
     '{"full":["2024-02-01T00:00:00Z","2024-01-01T00:00:00Z"],"service":'
     '["2024-02-01T00:00:00Z","2024-01-01T00:00:00Z"]}}'), "proration.full: it ends before"),
    (('{"currency":"usd","charge":{"model":"flat","amount":"1"},"proration":'
     '{"full":["2024-01-01T00:00:00Z","2024-02-01T00:00:00Z"],"service":'
     '["2024-01-01T00:00:00Z","2024-03-01T00:00:00Z"]}}'), "proration.service: "),
    ('{"currency":"usd","currency":"eur"}', "'currency' stands twice"),
    ("", "the input is not JSON"),
    ("[" * 100_000, "nested too deeply"),
    ("7", "write an object"),
    ("[[]]", "[0]: write an object"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "message"), CASES)
def test_a_wrong_value_is_refused_by_name(source: str, message: str) -> None:
    assert refused(source).startswith(message) or message in refused(source)


def test_in_an_array_the_item_is_named() -> None:
    wrong = UNIT | {"quantity": "-1"}
    assert refused(json.dumps([UNIT, wrong])).startswith("[1].quantity: ")
    wrong = UNIT | {"charge": {"model": "unit", "unit": 0.5}}
    assert refused(json.dumps([UNIT, UNIT, wrong])).startswith("[2].charge.unit: ")


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(Invalid, match="UTF-8"):
        rated_text(b'{"currency":"\xff"}')


def test_the_command_prints_one_line_of_json() -> None:
    done = run("-", source=json.dumps(GRADUATED))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == rated(GRADUATED)
    assert done.stdout.count("\n") == 1


def test_the_command_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "charge.json"
    path.write_text(json.dumps(FLAT), encoding="utf-8")
    assert json.loads(run(str(path), "--json").stdout)["total"] == "20.00"


def test_a_refused_command_prints_one_line_on_standard_error_only() -> None:
    done = run("-", source=json.dumps([FLAT, UNIT | {"quantity": "-1"}]))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("convergio: [1].quantity: ")
    assert done.stderr.count("\n") == 1
