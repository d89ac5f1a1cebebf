"""Who signs up: invented people and companies, drawn from one seeded source of chance.

Everyone in the world is decided here before its first day: plan, how they pay, how much they ask,
when they leave. Names are put together from lists, and every address is under `.example`, which
belongs to nobody (RFC 2606). Pure: the same chance gives the same people.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final, NamedTuple
from unicodedata import normalize

from convergio.kernel.periods import Period
from convergio.payments.gateways.sandbox import Token

PLANS: Final[Mapping[str, float]] = {"free": 0.54, "pro": 0.33, "team": 0.10, "enterprise": 0.03}
TOKENS: Final[Mapping[str, float]] = {
    Token.OK: 0.78,
    Token.DECLINED: 0.05,
    Token.DECLINED_TWICE: 0.05,
    Token.STOLEN: 0.03,
    Token.REQUIRES_ACTION: 0.03,
    Token.TIMEOUT_CHARGED: 0.03,
    Token.TIMEOUT_LOST: 0.03,
}
_THERE_AT_THE_START: Final = 0.4
_LEAVES: Final = 0.09
_LEAVES_AT_ONCE: Final = 0.4
_MENDS: Final = 0.6
_HEAVY: Final = 0.22
_EAGER: Final = 0.3
_STAYS_DAYS_MIN: Final = 9


class _Place(NamedTuple):
    country: str
    locale: str
    time_zone: str
    streets: tuple[str, ...]
    cities: tuple[tuple[str, str, str | None], ...]  # postal code, city, region
    given: tuple[str, ...]
    family: tuple[str, ...]


_PLACES: Final = (
    _Place(
        "IT", "it", "Europe/Rome",
        ("Via dei Faggi", "Via della Fonte", "Viale dei Pini", "Corso Vecchio"),
        (
            ("20121", "Milano", "MI"), ("10121", "Torino", "TO"), ("40121", "Bologna", "BO"),
            ("80121", "Napoli", "NA"),
        ),
        ("Giulia", "Marco", "Chiara", "Luca", "Elena", "Niccolò", "Sofia", "Davide"),
        ("Conti", "Ferri", "Galli", "Marini", "Rinaldi", "Serra", "Testa", "Villa"),
    ),
    _Place(
        "GB", "en", "Europe/London",
        ("Mill Lane", "Orchard Road", "Station Road", "Chapel Street"),
        (
            ("LS1 4AP", "Leeds", None), ("BS1 5TR", "Bristol", None), ("N1 9GU", "London", None),
            ("YO1 7HH", "York", None),
        ),
        ("Amelia", "Oliver", "Freya", "Harry", "Imogen", "Callum", "Nia", "Rhys"),
        ("Ashdown", "Barlow", "Croft", "Hargreave", "Kendal", "Penrose", "Thorne", "Whitby"),
    ),
    _Place(
        "US", "en", "America/New_York",
        ("Maple Avenue", "Cedar Street", "Harbor Road", "Lincoln Drive"),
        (
            ("02108", "Boston", "MA"), ("78701", "Austin", "TX"), ("80202", "Denver", "CO"),
            ("97204", "Portland", "OR"),
        ),
        ("Ava", "Mason", "Zoe", "Logan", "Naomi", "Elijah", "Ruth", "Diego"),
        ("Abbott", "Calloway", "Dalton", "Iverson", "Merritt", "Ortega", "Sutton", "Walsh"),
    ),
    _Place(
        "DE", "en", "Europe/Berlin",
        ("Lindenweg", "Ahornallee", "Bergstraße", "Gartenweg"),
        (
            ("10115", "Berlin", None), ("20095", "Hamburg", None), ("50667", "Köln", None),
            ("80331", "München", None),
        ),
        ("Lena", "Jonas", "Mia", "Felix", "Hannah", "Paul", "Jördis", "Emil"),
        ("Albrecht", "Brandt", "Förster", "Hartmann", "Keller", "Lorenz", "Seidel", "Vogt"),
    ),
)  # fmt: skip
_COMPANIES: Final = (
    "Almond Analytics", "Birch Robotics", "Cobalt Legal", "Driftwood Media", "Ember Health",
    "Fennel Foods", "Granite Insurance", "Harvest Logistics", "Indigo Travel", "Juniper Energy",
    "Kestrel Studios", "Larch Finance", "Meadow Schools", "Nimbus Freight", "Osprey Games",
)  # fmt: skip
_ENDINGS: Final = {"IT": "S.r.l.", "GB": "Ltd", "US": "Inc.", "DE": "GmbH"}


@dataclass(frozen=True, slots=True)
class Person:
    """A customer as the world knows them; `questions` is what they ask for in 30 days."""

    key: str
    name: str
    email: str
    street: str
    postal_code: str
    city: str
    region: str | None
    tax_id: str | None
    sdi_code: str | None
    purchase_order: str | None
    country: str
    locale: str
    time_zone: str
    plan: str
    seats: int
    joins_at: datetime
    token: str | None
    mends_after_days: int | None
    leaves_at: datetime | None
    leaves_at_once: bool
    questions: float


def population(chance: Random, size: int, during: Period) -> list[Person]:
    """Return everyone who ever signs up during a time, in the order in which they do."""
    plans = spread(chance, PLANS, size)
    tokens = iter(spread(chance, TOKENS, sum(plan != "free" for plan in plans)))
    joins = _joins(chance, size, during)
    return [
        _person(
            chance,
            number,
            plan=plan,
            joined=joined,
            token=None if plan == "free" else next(tokens),
            until=during.end,
        )
        for number, (plan, joined) in enumerate(zip(plans, joins, strict=True), 1)
    ]


def spread(chance: Random, shares: Mapping[str, float], size: int) -> list[str]:
    """Return `size` names in their shares, shuffled: the rare ones are there when there is room."""
    first, *rest = shares
    drawn = [name for name in rest for _ in range(max(1, round(shares[name] * size)))][:size]
    drawn += [first] * (size - len(drawn))
    chance.shuffle(drawn)
    return drawn


def _joins(chance: Random, size: int, during: Period) -> list[datetime]:
    """Return distinct instants in daytime: some on the first day, the others ever more often."""
    days = (during.end - during.start).days
    seen: set[datetime] = set()
    while len(seen) < size:
        early = len(seen) < size * _THERE_AT_THE_START
        day = 0 if early else int(days * chance.random() ** 0.8)
        seen.add(during.start + timedelta(days=day, seconds=chance.randrange(25_200, 79_200)))
    return sorted(seen)


def _person(
    chance: Random,
    number: int,
    *,
    plan: str,
    joined: datetime,
    token: str | None,
    until: datetime,
) -> Person:
    where = _PLACES[0] if number % 4 == 1 else chance.choice(_PLACES)
    given, family = chance.choice(where.given), chance.choice(where.family)
    company = f"{chance.choice(_COMPANIES)} {_ENDINGS[where.country]}"
    mail = f"{given}.{family}.{number}@mail.example".lower()
    leaves = joined + timedelta(days=_STAYS_DAYS_MIN, seconds=chance.randrange(5_000_000))
    goes = chance.random() < _LEAVES and leaves < until
    is_company = plan in {"team", "enterprise"}
    mends = token in {Token.DECLINED, Token.STOLEN} and chance.random() < _MENDS
    street = f"{chance.choice(where.streets)} {chance.randint(1, 90)}"
    postal_code, city, region = chance.choice(where.cities)
    return Person(
        key=f"user-{number:04d}",
        name=company if is_company else f"{given} {family}",
        email=normalize("NFKD", mail).encode("ascii", "ignore").decode(),
        street=street,
        postal_code=postal_code,
        city=city,
        region=region,
        tax_id=_vat_number(where.country, number) if is_company else None,
        sdi_code=f"CVG{number % 10_000:04d}" if is_company and where.country == "IT" else None,
        purchase_order=f"PO-{number:04d}" if plan == "enterprise" else None,
        country=where.country,
        locale=where.locale,
        time_zone=where.time_zone,
        plan=plan,
        seats=chance.randint(2, 12) if plan == "team" else 1,
        joins_at=joined,
        token=token,
        mends_after_days=chance.randint(2, 14) if mends else None,
        leaves_at=leaves if goes else None,
        leaves_at_once=chance.random() < _LEAVES_AT_ONCE,
        questions=_appetite(chance, plan),
    )


def _vat_number(country: str, number: int) -> str | None:
    """Return an invented VAT number whose check digit is right, where this world has them."""
    if country == "IT":  # Luhn
        body = f"9{number:06d}015"
        doubled = [int(sign) * (1 + at % 2) for at, sign in enumerate(body)]
        return f"IT{body}{-sum(one // 10 + one % 10 for one in doubled) % 10}"
    if country == "DE":  # ISO 7064, modulus 11 and 10
        body, left = f"9{number:07d}", 10
        for sign in body:
            left = 2 * ((int(sign) + left) % 10 or 10) % 11
        return f"DE{body}{(11 - left) % 10}"
    return None


def _appetite(chance: Random, plan: str) -> float:
    """Return the questions of 30 days: most people ask little, a few ask for most of it."""
    if plan == "free":
        return chance.uniform(50, 100) if chance.random() < _EAGER else chance.uniform(1, 40)
    if plan == "pro":
        heavy = chance.random() < _HEAVY
        return chance.uniform(550, 1_900) if heavy else chance.lognormvariate(4.8, 0.8)
    if plan == "team":
        return chance.lognormvariate(6.5, 0.6)
    return chance.uniform(60_000, 160_000)
