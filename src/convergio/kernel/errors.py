"""One tree of errors, so that an edge decides what to say with one look at the class.

    ConvergioError
    |-- Rejected                 the caller's turn: the request cannot be done as it stands
    |   |-- Invalid              a value is wrong; `field` names it
    |   |-- Unauthenticated      who is asking is unknown
    |   |-- Forbidden            who is asking may not
    |   |-- NotFound             no such thing, or not yours
    |   |-- Conflict             the state of the thing does not allow it
    |   `-- LimitExceeded        too much, too large or too often
    |-- Unavailable              nothing was done; try again with the same key
    |-- OutcomeUnknown           perhaps it was done; ask before trying again
    `-- Fault                    an invariant broke: a bug, abort and page someone

A `detail` is one sentence that ends with what to do next. It never holds a secret or
personal data, because edges print it.
"""

from dataclasses import dataclass


class ConvergioError(Exception):
    """An error of this house: a sentence for a person and a stable code for a program."""

    code = "error"

    def __init__(self, detail: str, *, code: str | None = None, field: str | None = None) -> None:
        """Keep the sentence, the code (the class's own when not given) and the field's name."""
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.field = field

    def __str__(self) -> str:
        """Return one line: the field, where there is one, and the sentence."""
        return f"{self.field}: {self.detail}" if self.field else self.detail


class Rejected(ConvergioError):
    """The request cannot be done as it stands: it is the caller's turn."""

    code = "rejected"


class Invalid(Rejected):
    """A value is wrong; `field` names it."""

    code = "invalid"


class Unauthenticated(Rejected):
    """Who is asking is unknown."""

    code = "unauthenticated"


class Forbidden(Rejected):
    """Who is asking may not do this."""

    code = "forbidden"


class NotFound(Rejected):
    """There is no such thing, or it belongs to someone else."""

    code = "not_found"


class Conflict(Rejected):
    """The state of the thing does not allow the request."""

    code = "conflict"


class LimitExceeded(Rejected):
    """Too much, too large or too often."""

    code = "limit_exceeded"


class Unavailable(ConvergioError):
    """Nothing was done; the same request with the same key may succeed later."""

    code = "unavailable"


class OutcomeUnknown(ConvergioError):
    """No answer came: it may have been done, so ask before trying again."""

    code = "outcome_unknown"


class Fault(ConvergioError):
    """A broken invariant, which is a bug: abort the transaction and page someone."""

    code = "fault"


def require(condition: bool, why: str) -> None:  # noqa: FBT001 - reads like `assert`, and stays on
    """Raise Fault with `why` unless the condition holds."""
    if not condition:
        raise Fault(why)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that `verify` found twice with two values: where, what was due, what is there."""

    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Return one line for a person."""
        return f"{self.where}: expected {self.expected}, found {self.found}"
