"""One tree of errors, and one table from it to HTTP."""

import inspect

import msgspec
import pytest
from litestar.exceptions import (
    InternalServerException,
    NotFoundException,
    ValidationException,
)

from convergio.api import problems
from convergio.kernel import errors
from convergio.kernel.errors import (
    Conflict,
    ConvergioError,
    Difference,
    Fault,
    Invalid,
    NotFound,
    Rejected,
    Unavailable,
    require,
)

CLASSES = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, ConvergioError) and one not in {ConvergioError, Rejected}
]
CARD = "4242 4242 4242 4242"


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_of_the_tree_has_its_status(kind: type[ConvergioError]) -> None:
    expected = {
        "Invalid": 422,
        "Unauthenticated": 401,
        "Forbidden": 403,
        "NotFound": 404,
        "Conflict": 409,
        "LimitExceeded": 429,
        "Unavailable": 503,
        "OutcomeUnknown": 202,
        "Fault": 500,
    }
    assert problems.of(kind("a sentence")).status == expected[kind.__name__]


def test_codes_are_stable_and_differ() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    assert Invalid("x", code="own").code == "own"
    assert Conflict("x").code == "conflict"


def test_only_rejected_ones_are_the_caller_s_turn() -> None:
    assert issubclass(NotFound, Rejected)
    assert not issubclass(Unavailable, Rejected)
    assert not issubclass(Fault, Rejected)


def test_a_field_stands_before_the_sentence() -> None:
    assert str(Invalid("write a number", field="port")) == "port: write a number"
    assert str(Invalid("write a number")) == "write a number"


def test_require_raises_a_fault_that_says_why() -> None:
    require(len("ab") > 1, "never said")
    with pytest.raises(Fault, match="sums agree"):
        require(len("ab") > 2, "sums agree")


def test_a_difference_is_one_line() -> None:
    assert str(Difference("usage", "2", "3")) == "usage: expected 2, found 3"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Invalid("x", code="malformed"), 400),
        (Invalid("x", code="bad_encoding"), 400),
        (Invalid("x", code="unsupported_media_type"), 415),
        (NotFoundException(), 404),
        (ValidationException(), 422),
        (msgspec.DecodeError("x"), 400),
        (RecursionError(), 400),
        (ZeroDivisionError("secret"), 500),
    ],
)
def test_other_exceptions_have_a_status_too(error: Exception, status: int) -> None:
    assert problems.of(error).status == status


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("secret"),
        Fault("secret"),
        InternalServerException(detail="secret", extra={"a": "secret"}),
    ],
)
def test_pan_11_a_fault_tells_nothing_of_the_inside(error: Exception) -> None:
    shown = problems.body(problems.of(error)).decode()
    assert "secret" not in shown
    assert '"status":500' in shown


def test_pan_01_a_problem_never_echoes_a_card_number() -> None:
    for error in (
        Invalid(f"'{CARD}' is not a zone", field="time_zone"),
        NotFound(f"there is no meter '{CARD}'"),
        ValidationException(extra=[{"message": f"Object contains unknown field `{CARD}`"}]),
    ):
        assert "4242" not in problems.body(problems.of(error)).decode()


def test_who_must_wait_is_told_how_long_and_who_is_unknown_how_to_sign_in() -> None:
    assert problems.headers(problems.of(Unavailable("x"))) == {"retry-after": "1"}
    unknown = problems.headers(problems.of(errors.Unauthenticated("x")))
    assert unknown["www-authenticate"].startswith("Bearer")
    assert problems.headers(problems.of(Invalid("x"))) == {}
