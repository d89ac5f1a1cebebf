"""Read the catalog, plan what a file would change, and apply it.

`plan_change` is `apply` in a savepoint that is undone: it shows what will happen, also that a
price is in use or that a plan would be archived, because it has just tried. One apply runs at a
time (the row of `catalog_state`), in the caller's one transaction; the version grows only when
something changed, so whoever keeps a `Catalog` compares `version` before trusting it.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.catalog import rules, store
from convergio.catalog.model import (
    MENDS,
    Catalog,
    CatalogFile,
    Change,
    Definition,
    Plan,
    Price,
    PriceTerms,
)
from convergio.infra import outbox, strict_yaml
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.kernel.errors import Conflict, require

EXAMPLE: Final = Path(__file__).with_name("example.yaml")
_READS_MAX: Final = 5
_NEVER: Final = datetime(2000, 1, 1, tzinfo=UTC)  # stands in rows that a plan undoes


class _Undone(Exception):
    """Leaves the savepoint of a plan, so that nothing of it stays."""


def version(tx: Tx) -> int:
    """Return the stored catalog's version, to compare with that of a kept `Catalog`."""
    return store.read_version(tx)


def current(tx: Tx) -> Catalog:
    """Return the stored catalog at one version.

    Locks: nothing, unless applies follow each other faster than it can be read: then the version,
    shared, so that the next apply waits for this transaction.
    """
    for _ in range(_READS_MAX):
        before = store.read_version(tx)
        found = _read(tx, before)
        if store.read_version(tx) == before:
            return found
    return _read(tx, store.share_state(tx))


def prices(tx: Tx, price_ids: Collection[UUID]) -> Mapping[UUID, Price]:
    """Return price versions by id, also those that are no longer sold; unknown ids are absent."""
    return store.read_prices_by_id(tx, price_ids)


def negotiate(tx: Tx, terms: PriceTerms, customer_id: UUID, *, now: datetime) -> Price:
    """Store a price that one customer alone has; the catalog never sells it.

    Its key is made from what it replaces, so that no two are the same.
    """
    price_id = new_id(now)
    own = replace(terms, key=f"{terms.listed_key}@{price_id.hex[-12:]}", version=1)
    store.insert_price(tx, own, price_id=price_id, now=now, customer_id=customer_id)
    return store.read_prices_by_id(tx, [price_id])[price_id]


def plan_change(tx: Tx, source: bytes) -> Change:
    """Return what `apply` would change, and change nothing.

    Locks: the catalog, while it tries. Raises: as `apply`.
    """
    wanted = _definition(source)
    change: Change | None = None
    with suppress(_Undone), tx.savepoint():
        change = _applied(tx, wanted, now=_NEVER)
        raise _Undone
    return change or Change(store.read_version(tx))


def apply(tx: Tx, source: bytes, *, now: datetime) -> Change:
    """Make the stored catalog what the file says; a second time changes nothing.

    Locks: the catalog. Emits: catalog.applied. Raises: Invalid naming the field of the file;
    Conflict for a price in use, a meter in use, or a meter that would count something else.
    """
    change = _applied(tx, _definition(source), now=now)
    if not change.is_empty:
        outbox.emit(tx, "catalog.applied", data={"version": change.version}, now=now)
    return change


def ensure_example(tx: Tx, *, now: datetime) -> Change | None:
    """Apply the packaged example where nothing was ever described; else do nothing.

    Locks: the catalog, only where it is empty. Emits: catalog.applied.
    """
    if not store.is_empty(tx):
        return None
    _lock(tx, now=now)
    return apply(tx, EXAMPLE.read_bytes(), now=now) if store.is_empty(tx) else None


def read_file(source: bytes) -> Definition:
    """Return what a file describes, checked, without a database. Raises: Invalid naming a field."""
    return _definition(source)


def _definition(source: bytes) -> Definition:
    file = strict_yaml.typed(strict_yaml.read(source), CatalogFile, mends=MENDS)
    return rules.definition(file)


def _lock(tx: Tx, *, now: datetime) -> int:
    store.begin_state(tx, now=now)
    return store.lock_state(tx)


def _read(tx: Tx, at_version: int) -> Catalog:
    by_id = store.read_prices(tx)
    sold: dict[str, list[Price]] = {}
    for row in store.read_plan_prices(tx):
        if row.price_id in by_id:  # else an apply came between the two reads: read again
            sold.setdefault(row.plan_key, []).append(by_id[row.price_id])
    plans = [
        Plan(
            key=row.plan_key,
            name=row.name,
            description=row.description,
            prices=tuple(sold.get(row.plan_key, ())),
            archived=row.archived,
            add_on=row.add_on,
        )
        for row in store.read_plans(tx)
    ]
    declared, meters = store.read_events(tx), store.read_meters(tx)
    return Catalog(
        version=at_version,
        event_types=rules.kept(declared, meters.values()),
        declared=declared,
        meters=meters,
        plans={plan.key: plan for plan in plans if not plan.archived},
        archived={plan.key: plan for plan in plans if plan.archived},
        prices_by_id=by_id,
        minimums=store.read_minimums(tx),
    )


def _applied(tx: Tx, wanted: Definition, *, now: datetime) -> Change:
    stored = _read(tx, _lock(tx, now=now))
    change = rules.difference(stored, wanted)
    if change.is_empty:
        return change
    store.clear_plan_prices(tx)
    for path, price in rules.replaced(stored, wanted).items():
        if not store.delete_price(tx, price.price_id):
            raise rules.in_use(path, price, stored, wanted)
    dropped = rules.dropped(stored, wanted)
    retired = {price.key for price in dropped if not store.delete_price(tx, price.price_id)}
    _save(tx, stored, wanted, now=now)
    archived = _remove(tx, change)
    store.save_state(tx, change.version, wanted.minimums, now=now)
    return rules.outcome(change, archived=archived, retired=retired)


def _save(tx: Tx, stored: Catalog, wanted: Definition, *, now: datetime) -> None:
    """Store everything that the file has, what it refers to first."""
    for event_type, keep in wanted.events.items():
        store.save_event(tx, event_type, keep)
    for meter in wanted.meters.values():
        starts_at, old = rules.starts_at(stored, meter, now=now), stored.meters.get(meter.key)
        if old is not None and old.version != meter.version and old.starts_at < starts_at:
            store.keep_definition(tx, old, ends_at=starts_at)
        store.save_meter(tx, meter, starts_at=starts_at, now=now)
    for price in rules.unstored(stored, wanted):
        store.insert_price(tx, price, price_id=new_id(now), now=now)
    for position, plan in enumerate(wanted.plans.values()):
        store.save_plan(tx, plan, position=position)
        store.insert_plan_price(
            tx,
            [
                {
                    "plan_key": plan.key,
                    "price_key": price.key,
                    "version": price.version,
                    "position": place,
                }
                for place, price in enumerate(plan.prices)
            ],
        )


def _remove(tx: Tx, change: Change) -> set[str]:
    """Remove what the file lacks; return the plans that could only be archived."""
    removed = [entry for entry in change.entries if entry.state == "removed"]
    archived = {
        entry.key
        for entry in removed
        if entry.what == "plan" and not store.delete_plan(tx, entry.key)
    }
    for plan_key in sorted(archived):
        store.archive_plan(tx, plan_key)
    for entry in removed:
        if entry.what == "meter" and not store.delete_meter(tx, entry.key):
            detail = f"meter '{entry.key}' has usage or prices; keep it in the file"
            raise Conflict(detail, code="meter_in_use", field="meters")
    for entry in removed:
        if entry.what == "event":
            done = store.delete_event(tx, entry.key)
            require(done, "an event type outlives its meters, which were just removed")
    return archived
