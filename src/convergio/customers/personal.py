"""The data map of this domain: which columns are personal, how they are kept, and why."""

from typing import Final

from convergio.crypto.model import PersonalColumn

TABLE: Final = "customer"
NAME: Final = "sealed_name"
EMAIL: Final = "sealed_email"
ADDRESS: Final = "sealed_address"
TAX_ID: Final = "sealed_tax_id"
EMAIL_INDEX: Final = "email_index"
POSTAL: Final = "sealed_postal"
ROUTING: Final = "sealed_routing"
POSTAL_FIELDS: Final = ("street", "postal_code", "city", "region")
ROUTING_FIELDS: Final = ("sdi_code", "pec", "purchase_order")

COLUMNS: Final = (
    PersonalColumn(TABLE, NAME, "customer", "name on invoices"),
    PersonalColumn(TABLE, EMAIL, "customer", "where invoices and reminders go"),
    PersonalColumn(TABLE, ADDRESS, "customer", "address on invoices, place of supply"),
    PersonalColumn(TABLE, TAX_ID, "customer", "tax id on invoices, proof of a business"),
    PersonalColumn(TABLE, POSTAL, "customer", "address on invoices in parts, place of supply"),
    PersonalColumn(TABLE, ROUTING, "customer", "where e-invoices go, and their order reference"),
    PersonalColumn(TABLE, EMAIL_INDEX, None, "look-up by e-mail: a keyed hash, not the address"),
    PersonalColumn(TABLE, "customer_key", None, "the seller's own id of the customer: a pseudonym"),
    PersonalColumn(
        "customer_directory",
        "customer_key",
        None,
        "the seller's own id of the customer: a pseudonym",
    ),
    PersonalColumn(TABLE, "country", None, "tax and language of invoices"),
    PersonalColumn(TABLE, "locale", None, "language of invoices"),
)
