"""Settings from the environment and one TOML file; the environment wins.

Every field has a variable `CONVERGIO_<FIELD>` (and `DATABASE_URL`). A wrong value stops the start
with a line that names the variable and the mend. Secrets are never part of `repr`.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from convergio.kernel.errors import Invalid
from convergio.kernel.money import exponent
from convergio.kernel.periods import zone

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=31_536_000)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
RateText = Annotated[str, msgspec.Meta(pattern="^([1-9][0-9]{0,6}/(second|minute|hour))?$")]
Line = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\Z")]


_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", re.ASCII)
KEEP_MONTHS_MIN = 18  # RULES 22: late events and disputes need that long
_MONTH_DAYS_MIN = 28


class Secret:
    """A value that no log, error or `repr` shows."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Keep the value out of sight."""
        self._value = value

    def reveal(self) -> str:
        """Return the value, at the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        """Return a mask."""
        return "Secret(***)"


class Seller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who issues the invoices; one deployment is one seller.

    `address` is free text for the page; `street` and the rest are what e-invoices ask for, and
    win where both are there. `regime` is the Italian tax regime, RF01 the ordinary one, and
    `stamp_duty` what an Italian e-invoice declares of it in euros; 0.00: nothing.
    """

    name: Text = "Example Seller Ltd"
    address: Text = "1 Example Street, 00100 Example City"
    street: Line = ""
    postal_code: Annotated[str, msgspec.Meta(max_length=20)] = ""
    city: Line = ""
    region: Line = ""
    country: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$")] = "IT"
    legal_form: Line = ""
    tax_id: str = ""
    tax_number: Annotated[str, msgspec.Meta(pattern="^([A-Z0-9]{11,16})?$")] = ""
    regime: Annotated[str, msgspec.Meta(pattern="^RF(0[124-9]|1[0-9]|20)$")] = "RF01"
    stamp_duty: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,3}\\.[0-9]{2}$")] = "2.00"
    iban: str = ""
    bic: Annotated[str, msgspec.Meta(pattern="^([A-Z]{6}[A-Z0-9]{2}([A-Z0-9]{3})?)?$")] = ""
    email: str = ""
    time_zone: Text = "UTC"
    series: Annotated[str, msgspec.Meta(pattern="^[A-Z0-9]{1,8}$")] = "CVG"
    net_days: Annotated[int, msgspec.Meta(ge=0, le=365)] = 14


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a deployment decides."""

    home: Text = "./.convergio"
    database_url: Secret | None = None
    kek: Secret | None = None
    currency: Text = "usd"
    host: Text = "127.0.0.1"
    port: Port = 8080
    pool_size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 8
    log_level: Annotated[str, msgspec.Meta(pattern="^(debug|info|warning|error)$")] = "info"
    ingest_batch_max: Positive = 5_000
    ingest_queue_max: Positive = 50_000
    ingest_back_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] = 35
    usage_keep_months: Annotated[int, msgspec.Meta(ge=0, le=1_200)] = 0
    billing_grace_seconds: Seconds = 3_600
    billing_workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    documents_folder: Annotated[str, msgspec.Meta(max_length=500)] = ""
    reservation_seconds: Annotated[int, msgspec.Meta(ge=1, le=3_600)] = 300
    rate_limit_key: RateText = "6000/minute"
    rate_limit_hot: RateText = ""
    rate_limit_customer: RateText = ""
    rate_limit_address: RateText = ""
    seller: Seller = Seller()

    @property
    def home_path(self) -> Path:
        """The folder for the embedded database, the key file and documents."""
        return Path(self.home).expanduser().absolute()

    @property
    def archive_path(self) -> Path:
        """The folder of the months of events that were let go."""
        return self.home_path / "archive"


_SCALARS = {
    name: f"CONVERGIO_{name.upper()}"
    for name in Settings.__struct_fields__
    if name not in {"seller", "database_url"}
} | {"database_url": "DATABASE_URL"}
_SELLER = {name: f"CONVERGIO_SELLER_{name.upper()}" for name in Seller.__struct_fields__}


def load_settings(environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Read the settings; `file` defaults to CONVERGIO_CONFIG.

    Raises: Invalid naming the variable.
    """
    named = environ.get("CONVERGIO_CONFIG")
    path = file or (Path(named) if named else None)
    values: dict[str, Any] = _read(path) if path else {}
    seller = values.get("seller")
    seller = dict(seller) if isinstance(seller, dict) else {}
    values |= {name: environ[var] for name, var in _SCALARS.items() if environ.get(var)}
    if environ.get("CONVERGIO_KEK") == "":
        detail = "it is set and empty; put the key in it, or unset it to use the key file"
        raise Invalid(detail, code="bad_settings", field="CONVERGIO_KEK")
    seller |= {name: environ[var] for name, var in _SELLER.items() if environ.get(var)}
    if seller:
        values["seller"] = seller
    _refuse_unknown(environ)
    settings = _convert(values)
    _check_together(settings)
    _check("CONVERGIO_CURRENCY", exponent, settings.currency)
    _check("CONVERGIO_SELLER_TIME_ZONE", zone, settings.seller.time_zone)
    _check("CONVERGIO_SELLER_IBAN", _check_iban, settings.seller.iban)
    return settings


def _check_together(settings: Settings) -> None:
    """Refuse what contradicts another setting, with the mend. Raises: Invalid."""
    months, kept_days = settings.usage_keep_months, settings.usage_keep_months * _MONTH_DAYS_MIN
    rules = (
        (
            settings.reservation_seconds > settings.billing_grace_seconds,
            "CONVERGIO_RESERVATION_SECONDS",
            (
                "a reservation must end before its period is billed: set it to at most "
                f"CONVERGIO_BILLING_GRACE_SECONDS ({settings.billing_grace_seconds})"
            ),
        ),
        (
            settings.ingest_queue_max < settings.ingest_batch_max,
            "CONVERGIO_INGEST_QUEUE_MAX",
            (
                "no batch could ever be filled: set it to at least "
                f"CONVERGIO_INGEST_BATCH_MAX ({settings.ingest_batch_max})"
            ),
        ),
        (
            0 < months < KEEP_MONTHS_MIN,
            "CONVERGIO_USAGE_KEEP_MONTHS",
            f"write 0 to keep events for ever, or at least {KEEP_MONTHS_MIN} months",
        ),
        (
            0 < kept_days < settings.ingest_back_days,
            "CONVERGIO_INGEST_BACK_DAYS",
            (
                "events as old as that are archived already: set it to at most "
                f"{kept_days}, or raise CONVERGIO_USAGE_KEEP_MONTHS ({months})"
            ),
        ),
    )
    for is_broken, field, detail in rules:
        if is_broken:
            raise Invalid(detail, code="bad_settings", field=field)


def _check_iban(text: str) -> None:
    """Refuse an account number whose check digits are wrong (ISO 13616: modulo 97 is 1)."""
    if not text:
        return
    shape = _IBAN.fullmatch(text)
    digits = "".join(str(int(sign, 36)) for sign in text[4:] + text[:4]) if shape else "0"
    if int(digits) % 97 != 1:
        detail = "write an IBAN in capital letters and without blanks; its check digits must agree"
        raise Invalid(detail, code="bad_settings", field="iban")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        detail = (
            f"cannot read the settings file {path.name}: {error}; mend it or unset the variable"
        )
        raise Invalid(detail, code="bad_settings", field="CONVERGIO_CONFIG") from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {*_SCALARS.values(), *_SELLER.values(), "CONVERGIO_CONFIG"}
    for name in sorted(environ):
        if name.startswith("CONVERGIO_") and name not in known:
            detail = "there is no such setting; see the table in README.md or unset the variable"
            raise Invalid(detail, code="unknown_setting", field=name)


def _convert(values: dict[str, Any]) -> Settings:
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=_secret)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`") or "file"
        variable = _SCALARS.get(name, f"CONVERGIO_{name.replace('.', '_').upper()}")
        hidden = variable in {"DATABASE_URL", "CONVERGIO_KEK"}
        detail = "the value is not valid" if hidden else f"{text}; write a value of that form"
        raise Invalid(detail, code="bad_settings", field=variable) from None


def _secret(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(kind)


def _check(variable: str, reader: Any, value: str) -> None:  # noqa: ANN401 - any parser of text
    try:
        reader(value)
    except Invalid as error:
        raise Invalid(error.detail, code="bad_settings", field=variable) from None
