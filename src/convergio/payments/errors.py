"""What the caller of payments can be told, each with the mend."""

from convergio.kernel.errors import Conflict, Invalid


def bad_last_four() -> Invalid:
    """Refuse anything but the four digits that people are shown."""
    detail = "write the last four digits of the card, such as 4242"
    return Invalid(detail, code="bad_last_four", field="last_four")


def bad_key(field: str) -> Invalid:
    """Refuse a name or a token of unexpected letters."""
    detail = "write letters, digits, dots, dashes and underscores only"
    return Invalid(detail, code="bad_key", field=field)


def unknown_gateway(name: str) -> Conflict:
    """Refuse to charge through a gateway that this deployment does not have."""
    detail = f"no gateway '{name[:60]}' is configured; configure it or add another payment method"
    return Conflict(detail, code="unknown_gateway", field="gateway")


def other_currency(currency: str) -> Conflict:
    """Refuse money of another currency than the customer's."""
    detail = f"this customer pays in {currency}; enter what arrived in {currency}"
    return Conflict(detail, code="other_currency", field="currency")


def bad_receipt(field: str, mend: str) -> Invalid:
    """Refuse a receipt that cannot be true."""
    return Invalid(mend, code=f"bad_{field}", field=field)


def called_beside(key: str, gateway: str) -> Conflict:
    """Say that the gateway was called for an attempt that another one has taken the place of."""
    detail = (
        f"{key} was dropped and called all the same, without a final answer, while another attempt"
        f" is under way; look at {gateway[:60]} for what became of this key, and give back what"
        " was taken twice"
    )
    return Conflict(detail, code="called_beside", field="gateway")


def other_receipt(reference: str) -> Conflict:
    """Refuse a second meaning of one reference."""
    detail = f"the reference '{reference[:60]}' was entered with other details; look it up first"
    return Conflict(detail, code="other_receipt", field="reference")
