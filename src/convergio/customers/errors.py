"""What can be wrong with a customer. No sentence repeats personal data or a customer's key."""

from convergio.kernel.errors import Conflict, NotFound


class CustomerExists(Conflict):
    """The key is taken."""

    code = "customer_exists"

    def __init__(self) -> None:
        """Say how to see the one that has it."""
        super().__init__(
            "a customer with this key exists; see it with: convergio customer show KEY", field="key"
        )


class CustomerNotFound(NotFound):
    """There is no such customer."""

    code = "customer_not_found"

    def __init__(self) -> None:
        """Say how to make one."""
        super().__init__(
            "there is no such customer; make it with: convergio customer create KEY",
            field="customer",
        )


class TaxNumberChanged(Conflict):
    """What was checked is not what the customer has any more."""

    code = "tax_number_changed"

    def __init__(self) -> None:
        """Say that it has to be checked again."""
        super().__init__(
            "the tax id or the country changed while it was being checked, so nothing is verified;"
            " look at the customer and check again: convergio tax verify",
            field="tax_id",
        )
