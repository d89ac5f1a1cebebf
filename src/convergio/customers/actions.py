"""Make and find customers. Personal data go through the keyring on their way in and out."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, Unpack
from uuid import UUID

import msgspec

from convergio.crypto.actions import Keyring
from convergio.customers import personal as columns
from convergio.customers import rules, store
from convergio.customers.errors import CustomerExists, CustomerNotFound, TaxNumberChanged
from convergio.customers.model import Customer, Details, Personal, SealedPersonal, TaxNumber
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.kernel.errors import Invalid

PAGE_SIZE_MAX: Final = 100


def create(
    tx: Tx,
    keyring: Keyring,
    *,
    key: str,
    now: datetime,
    currency: str = "usd",
    **details: Unpack[Details],
) -> Customer:
    """Make one customer.

    Emits: customer.created. Raises: CustomerExists, Invalid.
    """
    personal = rules.personal_of(details)
    customer = rules.account_of(
        Customer(
            customer_id=new_id(now),
            customer_key=rules.check_key(key),
            currency=currency,
            country=None,
            locale="en",
            created_at=now,
            updated_at=now,
        ),
        details,
    )
    rules.check_party(personal, customer.country)
    if not store.insert_directory(tx, {key: customer.customer_id}):
        raise CustomerExists
    store.insert_customer(tx, customer, _sealed(tx, keyring, customer.customer_id, personal))
    outbox.emit_many(tx, [_created(customer.customer_id)], now=now)
    return customer


def update(
    tx: Tx, keyring: Keyring, customer_id: UUID, *, now: datetime, **details: Unpack[Details]
) -> Customer:
    """Change what is known of a customer; what is not named stays, and None forgets it.

    Invoices that are issued keep what they say. Nobody has verified another tax id, nor the same
    one in another country (RULES 13).
    Locks: the customer. Emits: customer.updated. Raises: CustomerNotFound, Invalid.
    """
    locked = store.lock_customer(tx, customer_id)
    if locked is None:
        raise CustomerNotFound
    before = personal(tx, keyring, customer_id)
    after = rules.personal_of(details, before)
    changed = rules.account_of(replace(locked, updated_at=now), details)
    rules.check_party(after, changed.country)
    if (after.tax_id, changed.country) != (before.tax_id, locked.country):
        changed = replace(changed, tax_id_verified_at=None)
    store.save_customer(tx, changed, _sealed(tx, keyring, customer_id, after))
    outbox.emit(tx, "customer.updated", customer_id=customer_id, subject=customer_id, now=now)
    return changed


def set_tax_id_verified(
    tx: Tx,
    keyring: Keyring,
    customer_id: UUID,
    *,
    verified: bool,
    now: datetime,
    checked: TaxNumber | None = None,
) -> Customer:
    """Keep that the tax id was seen to be real and theirs at `now`, or that it is not.

    `checked` is what was looked at: a check says nothing about any other number. Locks: the
    customer. Emits: customer.updated. Raises: CustomerNotFound; Invalid without a tax id; Conflict
    when the customer has another one, or is in another country, by now.
    """
    locked = store.lock_customer(tx, customer_id)
    if locked is None:
        raise CustomerNotFound
    known = personal(tx, keyring, customer_id)
    if checked is not None and checked != (locked.country, known.tax_id):
        raise TaxNumberChanged
    if verified and known.tax_id is None:
        detail = "the customer has no tax id; write it first: convergio customer update --tax-id"
        raise Invalid(detail, code="no_tax_id", field="tax_id")
    changed = replace(locked, tax_id_verified_at=now if verified else None, updated_at=now)
    store.save_customer(tx, changed, _sealed(tx, keyring, customer_id, known))
    outbox.emit(tx, "customer.updated", customer_id=customer_id, subject=customer_id, now=now)
    return changed


def create_many(
    tx: Tx, keys: Collection[str], *, now: datetime, currency: str = "usd"
) -> dict[str, UUID]:
    """Return the id of every key, making the customers that are new, without personal data.

    Safe beside other writers of the same keys: one of them makes the customer, all get its id.
    Emits: customer.created, for the new ones. Raises: Invalid for the first key that cannot be one.
    """
    rules.check_account(currency=currency, country=None, locale="en")
    asked = {rules.check_key(key) for key in keys}
    known = store.find_ids(tx, list(asked))
    wanted = {key: new_id(now) for key in sorted(asked - known.keys())}
    if not wanted:
        return known
    store.insert_directory(tx, wanted)
    found = store.find_ids(tx, list(wanted))
    made = [key for key, customer_id in wanted.items() if found[key] == customer_id]
    store.copy_customers(
        tx, [Customer(wanted[key], key, currency, None, "en", now, now) for key in made]
    )
    outbox.emit_many(tx, [_created(wanted[key]) for key in made], now=now)
    return known | found


def ids_by_key(tx: Tx, keys: Collection[str]) -> dict[str, UUID]:
    """Return the ids of the keys that are known, in one query. A key that cannot be one is not."""
    return store.find_ids(tx, [key for key in keys if rules.is_key(key)])


def find(tx: Tx, key_or_id: str) -> Customer:
    """Return the customer with this key or public id. Raises: CustomerNotFound."""
    customer_id = rules.read_id(key_or_id) or ids_by_key(tx, [key_or_id]).get(key_or_id)
    if customer_id is None:
        raise CustomerNotFound
    return get(tx, customer_id)


def get(tx: Tx, customer_id: UUID) -> Customer:
    """Return the customer with this id. Raises: CustomerNotFound."""
    customer = store.find_customer(tx, customer_id)
    if customer is None:
        raise CustomerNotFound
    return customer


def find_by_email(
    tx: Tx, keyring: Keyring, email: str, *, size_max: int = PAGE_SIZE_MAX
) -> list[Customer]:
    """Return the customers with this e-mail address, whatever its case. Raises: Invalid."""
    rules.check_personal(Personal(email=email))
    index = keyring.blind_index(tx, columns.EMAIL, email)
    return store.find_customers_by_email(tx, index, size_max=size_max)


def page(tx: Tx, *, after: UUID | None = None, size_max: int = PAGE_SIZE_MAX) -> list[Customer]:
    """Return customers in the order of their making, after the given id."""
    return store.find_customers(tx, after=after, size_max=size_max)


def get_many(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Customer]:
    """Return many customers by id, in one read. Raises: CustomerNotFound when one is missing."""
    found = {one.customer_id: one for one in store.list_customers(tx, customer_ids)}
    if not found.keys() >= set(customer_ids):
        raise CustomerNotFound
    return found


def personal(tx: Tx, keyring: Keyring, customer_id: UUID) -> Personal:
    """Return a customer's personal data in the clear.

    Raises: CustomerNotFound; Fault when a field does not open; Unavailable without its KEK.
    """
    sealed = store.find_sealed(tx, customer_id)
    if sealed is None:
        raise CustomerNotFound
    return _opened(tx, keyring, customer_id, sealed)


def personal_many(tx: Tx, keyring: Keyring, customer_ids: Sequence[UUID]) -> dict[UUID, Personal]:
    """Return the personal data of those customers who have any, as `personal` does.

    Two queries, however many customers there are.
    """
    found = store.list_sealed(tx, customer_ids)
    keyring.hold(tx, found)
    return {who: _opened(tx, keyring, who, sealed) for who, sealed in found.items()}


def _opened(tx: Tx, keyring: Keyring, customer_id: UUID, sealed: SealedPersonal) -> Personal:
    def opened(column: str, value: bytes | None) -> str | None:
        if value is None:
            return None
        return keyring.open(tx, customer_id, columns.TABLE, column, customer_id, value)

    def group(column: str, value: bytes | None) -> dict[str, str]:
        text = opened(column, value)
        return {} if text is None else msgspec.json.decode(text, type=dict[str, str])

    return Personal(
        name=opened(columns.NAME, sealed.sealed_name),
        email=opened(columns.EMAIL, sealed.sealed_email),
        address=opened(columns.ADDRESS, sealed.sealed_address),
        tax_id=opened(columns.TAX_ID, sealed.sealed_tax_id),
        **group(columns.POSTAL, sealed.sealed_postal),
        **group(columns.ROUTING, sealed.sealed_routing),
    )


def _sealed(tx: Tx, keyring: Keyring, customer_id: UUID, clear: Personal) -> SealedPersonal:
    def sealed(column: str, value: str | None) -> bytes | None:
        if value is None:
            return None
        return keyring.seal(tx, customer_id, columns.TABLE, column, customer_id, value)

    def group(column: str, fields: Sequence[str]) -> bytes | None:
        known = {name: value for name in fields if (value := getattr(clear, name)) is not None}
        return sealed(column, json.dumps(known, ensure_ascii=False)) if known else None

    email = clear.email
    return SealedPersonal(
        sealed_name=sealed(columns.NAME, clear.name),
        sealed_email=sealed(columns.EMAIL, email),
        sealed_address=sealed(columns.ADDRESS, clear.address),
        sealed_tax_id=sealed(columns.TAX_ID, clear.tax_id),
        email_index=None if email is None else keyring.blind_index(tx, columns.EMAIL, email),
        sealed_postal=group(columns.POSTAL, columns.POSTAL_FIELDS),
        sealed_routing=group(columns.ROUTING, columns.ROUTING_FIELDS),
    )


def _created(customer_id: UUID) -> outbox.Fact:
    return outbox.Fact("customer.created", customer_id, customer_id)
