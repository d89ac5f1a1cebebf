"""The offline check of tax numbers: form and check digits, country by country.

It can prove that a number is wrong, never that it exists and is the customer's: that takes the
register of its country (for the European Union: VIES), and somebody who writes down the answer.
"""

from stdnum import get_cc_module
from stdnum.exceptions import ValidationError

from convergio.taxes.model import Checked


class OfflineChecker:
    """Checks the form of a number with python-stdnum; no network."""

    name = "form and check digits (python-stdnum)"

    def check(self, country: str, number: str) -> Checked:
        """Say whether a number of a country is well formed."""
        module = get_cc_module(country.lower(), "vat")
        if module is None:
            return Checked(is_valid=True, finding=f"numbers of {country} have no known form")
        try:
            compact = module.validate(number)
        except ValidationError as error:
            return Checked(is_valid=False, finding=str(error) or "not a number of this country")
        return Checked(is_valid=True, finding=f"well formed: {len(compact)} characters")
