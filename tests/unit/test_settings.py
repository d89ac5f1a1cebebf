"""Settings: the environment wins, a wrong value names its variable, a secret never shows."""

from pathlib import Path

import pytest

from convergio.infra.settings import Secret, Settings, load_settings
from convergio.kernel.errors import Invalid

DSN = "postgresql://ada:swordfish@db.example/billing"


def refused(environ: dict[str, str], file: Path | None = None) -> Invalid:
    with pytest.raises(Invalid) as caught:
        load_settings(environ, file)
    return caught.value


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load_settings({}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CONVERGIO_PORT", "0"),
        ("CONVERGIO_PORT", "65536"),
        ("CONVERGIO_PORT", "http"),
        ("CONVERGIO_PORT", "80.5"),
        ("CONVERGIO_POOL_SIZE", "101"),
        ("CONVERGIO_LOG_LEVEL", "loud"),
        ("CONVERGIO_INGEST_BATCH_MAX", "-1"),
        ("CONVERGIO_INGEST_QUEUE_MAX", "many"),
        ("CONVERGIO_INGEST_BACK_DAYS", "0"),
        ("CONVERGIO_INGEST_BACK_DAYS", "36501"),
        ("CONVERGIO_BILLING_GRACE_SECONDS", "-1"),
        ("CONVERGIO_RESERVATION_SECONDS", "0"),
        ("CONVERGIO_CURRENCY", "dollars"),
        ("CONVERGIO_SELLER_COUNTRY", "Italy"),
        ("CONVERGIO_SELLER_SERIES", "a series"),
        ("CONVERGIO_SELLER_NET_DAYS", "366"),
        ("CONVERGIO_SELLER_IBAN", "IT60X0542811101000000123457"),
        ("CONVERGIO_SELLER_IBAN", "IT60 X054 2811 1010 0000 0123 456"),
        ("CONVERGIO_SELLER_BIC", "BPM"),
        ("CONVERGIO_SELLER_REGIME", "RF03"),
        ("CONVERGIO_SELLER_TAX_NUMBER", "x"),
        ("CONVERGIO_SELLER_STREET", "Via Roma\n1"),
        ("CONVERGIO_SELLER_POSTAL_CODE", "1" * 21),
        ("CONVERGIO_SELLER_TIME_ZONE", "Europe/Atlantis"),
        ("CONVERGIO_HOME", "x" * 501),
        ("CONVERGIO_KEK", ""),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str) -> None:
    error = refused({variable: value})
    assert error.field == variable
    assert str(error).startswith(f"{variable}: ")
    assert "\n" not in str(error)


def test_a_seller_with_an_account_is_read() -> None:
    iban = "IT60X0542811101000000123456"
    seller = load_settings({"CONVERGIO_SELLER_IBAN": iban, "CONVERGIO_SELLER_REGION": "RM"}).seller
    assert (seller.iban, seller.region, seller.regime) == (iban, "RM", "RF01")


def test_a_misspelled_variable_is_refused_and_not_ignored() -> None:
    assert refused({"CONVERGIO_PROT": "80"}).field == "CONVERGIO_PROT"


def test_a_reservation_must_end_before_its_period_is_billed() -> None:
    error = refused(
        {"CONVERGIO_RESERVATION_SECONDS": "61", "CONVERGIO_BILLING_GRACE_SECONDS": "60"}
    )
    assert error.field == "CONVERGIO_RESERVATION_SECONDS"
    settings = load_settings(
        {"CONVERGIO_RESERVATION_SECONDS": "60", "CONVERGIO_BILLING_GRACE_SECONDS": "60"}
    )
    assert settings.reservation_seconds == 60


@pytest.mark.parametrize(
    ("first", "second", "mend"),
    [
        (("INGEST_QUEUE_MAX", 4999), ("INGEST_BATCH_MAX", 5000), 5000),
        (("INGEST_QUEUE_MAX", 1), ("INGEST_BATCH_MAX", 2), 2),
        (("RESERVATION_SECONDS", 300), ("BILLING_GRACE_SECONDS", 299), 299),
        (("RESERVATION_SECONDS", 1), ("BILLING_GRACE_SECONDS", 0), 0),
        (("INGEST_BACK_DAYS", 505), ("USAGE_KEEP_MONTHS", 18), 504),
        (("USAGE_KEEP_MONTHS", 17), ("INGEST_BACK_DAYS", 35), 18),
    ],
)
def test_settings_that_contradict_each_other_name_the_one_to_mend_and_how(
    first: tuple[str, int], second: tuple[str, int], mend: int
) -> None:
    chosen = {f"CONVERGIO_{name}": str(value) for name, value in (first, second)}
    error = refused(chosen)
    assert error.field == f"CONVERGIO_{first[0]}"
    assert str(mend) in error.detail
    if mend:
        load_settings(chosen | {f"CONVERGIO_{first[0]}": str(mend)})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "convergio.toml"
    file.write_text('port = 1234\ncurrency = "eur"\n[seller]\nname = "File"\ncountry = "DE"\n')
    settings = load_settings(
        {"CONVERGIO_CONFIG": str(file), "CONVERGIO_PORT": "99", "CONVERGIO_SELLER_NAME": "Env"}
    )
    assert (settings.port, settings.currency) == (99, "eur")
    assert (settings.seller.name, settings.seller.country) == ("Env", "DE")


@pytest.mark.parametrize("content", ["port = ", "[[[", "\xff\xfe"])
def test_a_broken_file_is_one_line_that_names_the_variable(tmp_path: Path, content: str) -> None:
    file = tmp_path / "convergio.toml"
    file.write_bytes(content.encode("latin-1"))
    error = refused({"CONVERGIO_CONFIG": str(file)})
    assert error.field == "CONVERGIO_CONFIG"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused({"CONVERGIO_CONFIG": str(tmp_path / "none.toml")}).field == "CONVERGIO_CONFIG"


@pytest.mark.parametrize("content", ["colour = 1", "[seller]\ncolour = 1"])
def test_an_unknown_entry_of_the_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "convergio.toml"
    file.write_text(content)
    assert "colour" in refused({}, file).detail


def test_pan_13_no_repr_shows_a_secret() -> None:
    settings = load_settings({"DATABASE_URL": DSN, "CONVERGIO_KEK": "k" * 44})
    assert settings.database_url is not None
    assert settings.database_url.reveal() == DSN
    for shown in (repr(settings), str(settings), f"{settings}", repr(Secret(DSN))):
        assert "swordfish" not in shown
        assert "kkkk" not in shown


def test_a_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "convergio.toml"
    file.write_text('database_url = ["swordfish"]')
    error = refused({}, file)
    assert error.field == "DATABASE_URL"
    assert "swordfish" not in str(error)


def test_usage_is_kept_for_ever_or_at_least_eighteen_months() -> None:
    assert load_settings({}).usage_keep_months == 0
    assert load_settings({"CONVERGIO_USAGE_KEEP_MONTHS": "18"}).usage_keep_months == 18
    for months in ("1", "17", "-1", "1201"):
        error = refused({"CONVERGIO_USAGE_KEEP_MONTHS": months})
        assert error.field == "CONVERGIO_USAGE_KEEP_MONTHS"
