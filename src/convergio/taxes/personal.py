"""The data map of this domain: which columns are personal, how they are kept, and why."""

from typing import Final

from convergio.crypto.model import PersonalColumn

TABLE: Final = "tax_id_check"

COLUMNS: Final = (
    PersonalColumn(TABLE, "country", None, "whose register was asked"),
    PersonalColumn(
        TABLE, "evidence", None, "what somebody looked at: a register's reference, no number"
    ),
)
