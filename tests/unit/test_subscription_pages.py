"""The page about subscriptions draws the transition table that the code has."""

from convergio.billing.model import Status as InvoiceStatus
from convergio.subscriptions.model import TRANSITIONS, Status
from tests.arch import house

PAGE = house.ROOT / "docs" / "subscriptions.md"


def drawn() -> str:
    """Return the table as Mermaid draws it."""
    rows = ["stateDiagram-v2", "    [*] --> active", "    [*] --> trialing"]
    rows += [
        f"    {status} --> {target}"
        for status in Status
        for target in sorted(TRANSITIONS[status], key=list(Status).index)
    ]
    return "\n".join([*rows, "    canceled --> [*]"])


def test_the_page_draws_the_table_that_the_code_has() -> None:
    assert f"```mermaid\n{drawn()}\n```" in PAGE.read_text(encoding="utf-8"), drawn()


def test_every_status_is_in_the_table_and_canceled_is_the_end() -> None:
    assert TRANSITIONS.keys() == set(Status)
    assert TRANSITIONS[Status.CANCELED] == frozenset()
    assert all(Status.CANCELED in TRANSITIONS[s] for s in Status if s != Status.CANCELED)


def test_the_page_names_what_becomes_of_an_invoice() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{status}`" in page for status in InvoiceStatus)
