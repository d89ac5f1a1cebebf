"""What a simulated seller sells: a catalog drawn from a seed, with every price model in it.

Ends of tiers and allowances are round numbers, and so are most quantities of the world, so that
usage lands on an end exactly far more often than in life: that is where a bound is off by one.
"""

from collections.abc import Sequence
from random import Random
from typing import Any, Final

EVENT: Final = "sim.request"
METERS: Final = ("questions", "storage", "spend")
YEN: Final = ("yen", "yen-plus")
LADDER: Final = ("basic", "pro", "volume", "packs", "peak")
SETUP: Final = ("launch", "launch-plus")
BY_VALUE: Final = ("models", "models-plus", "regional")
WORLD: Final = ("world", "world-plus")
ADD_ONS: Final = ("support", "backup", "cover")
MODELS: Final = ("large", "small", "odd")
REGIONS: Final = ("eu", "us")
_FEES: Final = ("6.99", "9.95", "19.00", "31.00", "49.99", "93.00", "0.01", "100.01")
_YEN: Final = ("500", "980", "1501", "3333")
_YEN_UNITS: Final = ("0.5", "1.5", "3")
_UNITS: Final = ("0.01", "0.10", "0.005", "0.333", "1.25", "0.0375")


def drawn(chance: Random) -> dict[str, Any]:
    """Return a catalog, as its file would have it."""
    return {
        "currency": "usd",
        "events": [{"type": EVENT, "keep": []}],
        "meters": [
            _meter("questions", "sum", "quantity", default="1"),
            _meter("storage", "max", "gigabytes"),
            _meter("spend", "sum", "spend"),
        ],
        "plans": [
            _plan(
                "free", _usage("free", {"model": "unit", "unit": "0", "included": "50"}, hard=50)
            ),
            _plan("basic", _fee("basic", chance), _usage("basic", _unit(chance), hard=30)),
            _plan("pro", _fee("pro", chance), _usage("pro", _graduated(chance))),
            _plan("volume", _fee("volume", chance), _usage("volume", _volume(chance))),
            _plan("packs", _fee("packs", chance), _usage("packs", _packs(chance))),
            _plan("peak", _fee("peak", chance), *_peak(chance)),
            _plan("team", _seats("team", chance), _usage("team", _unit(chance))),
            _plan("metered", _usage("metered", _committed(chance))),
            _plan("yearly", _fee("yearly", chance, "year"), _usage("yearly", _unit(chance))),
            _plan("weekly", _fee("weekly", chance, "week"), _weekly(chance)),
            _plan("quarterly", _fee("quarterly", chance, "quarter")),
            _plan("yen", _yen_fee("yen", chance), _yen("yen", chance)),
            _plan("yen-plus", _yen_fee("yen-plus", chance), _yen("yen-plus", chance)),
        ],
    }


def beside(chance: Random, plain: dict[str, Any]) -> dict[str, Any]:
    """Return the catalog with more in it: setup fees, prices by value, currencies, add-ons."""
    meters = [
        meter | ({"group_by": ["model", "region"]} if meter["key"] == "questions" else {})
        for meter in plain["meters"]
    ]
    models = ("large", "small"), ("odd", "large")
    more = [
        _plan("launch", _fee("launch", chance), _setup("launch", chance), _asked(chance, "launch")),
        _plan(
            "launch-plus", _fee("launch-plus", chance), _setup("launch-plus", chance),
            _usage("launch-plus", _graduated(chance)),
        ),
        *(
            _plan(plan, _fee(plan, chance), _by(plan, "model", values, chance))
            for plan, values in zip(BY_VALUE, models, strict=False)
        ),
        _plan("regional", _fee("regional", chance), _by("regional", "region", REGIONS, chance)),
        *(_plan(plan, _both(_fee(plan, chance), chance), _both_used(plan, chance))
          for plan in WORLD),
        *_add_ons(chance),
    ]  # fmt: skip
    return plain | {"meters": meters, "plans": [*plain["plans"], *more]}


def other(chance: Random, price: dict[str, Any]) -> dict[str, Any]:
    """Return another charge that can stand where a price's own does."""
    charge: dict[str, Any] = price["charge"]
    fees, units = (_YEN, _YEN_UNITS) if price.get("currency") == "jpy" else (_FEES, _UNITS)
    if price.get("meter") == "questions" and units is _UNITS:
        if "quota" in price:
            limit = price["quota"]["limit"]
            return {"model": "unit", "unit": chance.choice(units), "included": limit}
        made: dict[str, Any] = chance.choice((_unit, _graduated, _volume, _packs))(chance)
        return made
    match charge["model"]:
        case "flat":
            return charge | {"amount": chance.choice((*fees, "0"))}
        case "percentage":
            return charge | {"percent": chance.choice(("1.5", "3.125"))}
        case _:
            return charge | {"unit": chance.choice(units)}


def _meter(key: str, aggregation: str, value: str, **more: str) -> dict[str, Any]:
    selects: dict[str, Any] = dict(more) or {"where": {value: {"exists": "true"}}}
    meter = {"key": key, "name": key, "event": EVENT, "aggregation": aggregation, "value": value}
    return selects | meter


def _plan(key: str, *prices: dict[str, Any]) -> dict[str, Any]:
    return {"key": key, "name": key, "prices": list(prices)}


def _fee(plan: str, chance: Random, interval: str = "month") -> dict[str, Any]:
    charge = {"model": "flat", "amount": chance.choice(_FEES)}
    return {"key": f"{plan}_fee", "name": f"{plan}_fee", "interval": interval, "charge": charge}


def _seats(plan: str, chance: Random) -> dict[str, Any]:
    charge = {"model": "seat", "unit": chance.choice(_FEES), "included": chance.choice("01")}
    return {"key": f"{plan}_seats", "name": f"{plan}_seats", "charge": charge}


def _usage(
    plan: str, charge: dict[str, Any], *, meter: str = "questions", hard: int | None = None
) -> dict[str, Any]:
    key = f"{plan}_{meter}"
    price: dict[str, Any] = {"key": key, "name": key, "meter": meter, "charge": charge}
    if hard is not None:
        price["quota"] = {"limit": charge["included"], "hard": "true"}
    return price


def _unit(chance: Random) -> dict[str, Any]:
    free = chance.choice(("0", "10", "30", "100"))
    return {"model": "unit", "unit": chance.choice(_UNITS), "included": free}


def _graduated(chance: Random) -> dict[str, Any]:
    return {"model": "graduated", "included": chance.choice(("0", "20")), "tiers": _tiers(chance)}


def _tiers(chance: Random, *, entry: bool = True) -> list[dict[str, Any]]:
    units = sorted(chance.sample(_UNITS, 3), reverse=True)
    flats = ("0", "2.50", "1") if entry else ("0", "0", "0")
    ends = ("20", "60", None)
    return [
        {"up_to": end, "flat": flat, "unit": unit}
        for end, flat, unit in zip(ends, flats, units, strict=True)
    ]


def _volume(chance: Random) -> dict[str, Any]:
    tiers = _tiers(chance, entry=False)
    return {"model": "volume", "included": chance.choice(("0", "10")), "tiers": tiers}


def _packs(chance: Random) -> dict[str, Any]:
    price = chance.choice(_FEES)
    return {"model": "package", "package_size": "20", "package_price": price, "included": "20"}


def _peak(chance: Random) -> list[dict[str, Any]]:
    storage = {"model": "unit", "unit": "0.25", "included": "5", "maximum": "4.00"}
    spend = {"model": "percentage", "percent": chance.choice(("2.9", "0.125")), "fixed": "0.30"}
    bought = _usage("peak", _unit(chance))
    return [
        bought, _usage("peak", storage, meter="storage"), _usage("peak", spend, meter="spend")
    ]  # fmt: skip


def _committed(chance: Random) -> dict[str, Any]:
    return {"model": "unit", "unit": chance.choice(_UNITS), "minimum": chance.choice(_FEES)}


def _weekly(chance: Random) -> dict[str, Any]:
    return _usage("weekly", _unit(chance)) | {"interval": "week"}


def _asked(chance: Random, plan: str) -> dict[str, Any]:
    return _usage(plan, _unit(chance))


def _setup(plan: str, chance: Random) -> dict[str, Any]:
    charge = {"model": "flat", "amount": chance.choice(_FEES)}
    return {"key": f"{plan}_setup", "name": f"{plan}_setup", "once": "true", "charge": charge}


def _by(plan: str, by: str, values: Sequence[str], chance: Random) -> dict[str, Any]:
    makers = (_unit, _unit, _graduated, _packs, _volume)
    charges = {value: chance.choice(makers)(chance) for value in values}
    return _usage(plan, _unit(chance)) | {"by": by, "charges": charges}


def _both(fee: dict[str, Any], chance: Random) -> dict[str, Any]:
    return fee | {"currencies": {"jpy": {"model": "flat", "amount": chance.choice(_YEN)}}}


def _both_used(plan: str, chance: Random) -> dict[str, Any]:
    yen = {"model": "unit", "unit": chance.choice(_YEN_UNITS), "included": "10"}
    return _usage(plan, _unit(chance)) | {"currencies": {"jpy": yen}}


def _add_ons(chance: Random) -> list[dict[str, Any]]:
    """Return what is sold beside plans: by number, with an installation, for a year."""
    unit = {"model": "seat", "unit": chance.choice(_FEES)}
    yen = {"jpy": {"model": "seat", "unit": chance.choice(_YEN)}}
    support = {"key": "support", "name": "support", "charge": unit, "currencies": yen}
    return [
        _plan(key, *prices) | {"add_on": "true"}
        for key, prices in (
            ("support", [support]),
            ("backup", [_fee("backup", chance), _setup("backup", chance)]),
            ("cover", [_fee("cover", chance, "year")]),
        )
    ]


def _yen_fee(plan: str, chance: Random) -> dict[str, Any]:
    charge = {"model": "flat", "amount": chance.choice(_YEN)}
    return {"key": f"{plan}_fee", "name": f"{plan}_fee", "currency": "jpy", "charge": charge}


def _yen(plan: str, chance: Random) -> dict[str, Any]:
    charge = {"model": "unit", "unit": chance.choice(_YEN_UNITS), "included": "10"}
    return _usage(plan, charge) | {"currency": "jpy"}
