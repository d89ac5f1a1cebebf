"""Ingest's compiled meters and the catalog's reference rules agree on every event."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from convergio.catalog import rules
from convergio.catalog.model import Filter, Meter
from convergio.metering.rules import compile_meter, nanos_decimal

TEXTS = ["1", "0.5", "true", "a", "100", "[]", "None", "1.0", ""]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(TEXTS),
    st.integers(-5, 10**19),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-2, max_value=50),
    st.sampled_from([Decimal("1E+2"), Decimal("1.00"), Decimal("1.0000000000"), [], {}, "1e2"]),
)
FILTERS = st.one_of(
    st.builds(
        Filter,
        st.sampled_from("ab"),
        st.sampled_from(["in", "not_in"]),
        st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3).map(tuple),
    ),
    st.builds(
        Filter, st.sampled_from("ab"), st.just("exists"), st.sampled_from([("true",), ("false",)])
    ),
)


@settings(max_examples=1000)
@given(
    st.dictionaries(st.sampled_from("abq"), VALUES),
    st.lists(FILTERS, max_size=2).map(tuple),
    st.sampled_from([None, "q"]),
    st.sampled_from([None, Decimal(1)]),
)
def test_a_compiled_meter_counts_what_the_reference_counts(
    properties: dict[str, object],
    filters: tuple[Filter, ...],
    value: str | None,
    default: Decimal | None,
) -> None:
    meter = Meter(
        meter_id=1,
        key="k",
        name="k",
        event_type="call",
        aggregation="sum" if value else "count",
        value=value,
        default=default if value else None,
        filters=filters,
    )
    counted = compile_meter(meter).measure(properties)
    if not rules.selects(meter, "call", properties):
        assert counted is None
        return
    expected = rules.quantity(meter, properties)
    assert counted is not None
    if isinstance(expected, Decimal):
        assert nanos_decimal(counted) == expected
    else:
        assert counted < 0
