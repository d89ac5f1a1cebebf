"""What can go wrong between a cache and the database."""

from collections.abc import Iterable

from convergio.metering.intake import Customer


class WindowsChanged(Exception):
    """The cached windows of these customers are behind the database; give the transaction up."""

    def __init__(self, customers: Iterable[Customer]) -> None:
        """Keep whose caches to drop."""
        super().__init__()
        self.customers = list(customers)


class BoundaryMoved(Exception):
    """The retention boundary that the batch was prepared for has moved; give the transaction up."""
