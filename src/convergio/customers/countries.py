"""Which countries there are: the codes that ISO 3166-1 assigns, as Babel's copy of CLDR has them.

A code that is none would be taxed as a place outside of every territory that the seller knows, and
no e-invoice could bear it.
"""

from functools import cache
from typing import Final

from babel import Locale

from convergio.kernel.errors import Invalid

_SIZE: Final = 2
# CLDR names more places than ISO 3166-1 assigns codes to. XK stays: cards and banks say Kosovo so.
_NOT_ASSIGNED: Final = frozenset(
    {"AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "ZZ"}
)
_OF_TAX_FORMS: Final = {"EL": "GR", "UK": "GB"}


@cache
def countries() -> frozenset[str]:
    """Return the codes of all countries."""
    named = map(str, Locale("en").territories)
    return frozenset(one for one in named if len(one) == _SIZE and one.isalpha()) - _NOT_ASSIGNED


def check_country(code: str, *, field: str = "country") -> None:
    """Refuse what is no country's code. Raises: Invalid naming the field."""
    refuse_code_of_tax_forms(code, field=field)
    if code not in countries():
        detail = "write the two capital letters of a country in ISO 3166-1, such as IT"
        raise Invalid(detail, code="bad_country", field=field)


def refuse_code_of_tax_forms(code: str, *, field: str) -> None:
    """Refuse a code that tax forms use and ISO 3166-1 does not. Raises: Invalid with the right one.

    Tables of rates also know codes of the past, and of what is no country.
    """
    if code in _OF_TAX_FORMS:
        detail = f"write {_OF_TAX_FORMS[code]}, the ISO 3166-1 code, and not {code}"
        raise Invalid(detail, code="bad_country", field=field)
