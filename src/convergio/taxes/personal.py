"""The data map of this domain: which columns are personal, how they are kept, and why."""

from typing import Final

from convergio.crypto.model import PersonalColumn

TABLE: Final = "tax_id_check"
EVIDENCE: Final = "tax_evidence"
PLACE: Final = "invoice_place"

COLUMNS: Final = (
    PersonalColumn(TABLE, "country", None, "whose register was asked"),
    PersonalColumn(
        TABLE, "evidence", None, "what somebody looked at: a register's reference, no number"
    ),
    PersonalColumn(EVIDENCE, "country", None, "where a card, an address or a line says they are"),
    PersonalColumn(EVIDENCE, "note", None, "what somebody looked at, in the seller's words"),
    PersonalColumn(PLACE, "country", None, "whose tax an invoice bears"),
    PersonalColumn(PLACE, "evidence", None, "which kinds of evidence named which country then"),
)
