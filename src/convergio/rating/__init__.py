"""Price a quantity: every price model, proration and the one rounding, as pure functions.

`rate` is the only way to an amount: billing, previews, simulation and `convergio rate` call it.
"""

from convergio.rating.model import Charge, Rated, RatedLine
from convergio.rating.rules import owed, proration, rate

__all__ = ["Charge", "Rated", "RatedLine", "owed", "proration", "rate"]
