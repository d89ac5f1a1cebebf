"""Instants for hypothesis to choose from."""

from datetime import UTC, datetime

from hypothesis import strategies as st


def instants(first_year: int, last_year: int) -> st.SearchStrategy[datetime]:
    """Return instants in UTC between the beginnings of two years."""
    first, last = (datetime(year, 1, 1, tzinfo=UTC) for year in (first_year, last_year))
    return st.datetimes(
        first.replace(tzinfo=None), last.replace(tzinfo=None), timezones=st.just(UTC)
    )
