"""From a number, or a month, to files: every document that was issued, as PDF or XML.

A file is written whole or not at all, and a document always gives the same bytes, so a run may be
killed at any point and started again; `missing_only` then goes on where it was. A document that
cannot be read or written is named, stands in no other's way, and is tried again by the next run. A
month is shared out among processes by the keys at which pages of documents begin.
"""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

from convergio.billing import (
    actions,
    correcting,
    crediting,
    documents,
    einvoices,
    factur_x,
    fatturapa,
)
from convergio.billing.einvoices import EInvoice
from convergio.billing.model import CreditNote, CreditNoteView, Invoice, InvoiceView
from convergio.crypto.actions import Keyring
from convergio.infra import processes
from convergio.infra.db import Database, Tx
from convergio.infra.settings import Seller
from convergio.kernel.errors import Conflict, ConvergioError, OutcomeUnknown, Unavailable

PAGE: Final = 50
_FIRST: Final = (UUID(int=0), UUID(int=0))
Progress = Callable[[int], None]
View = InvoiceView | CreditNoteView


class Format(StrEnum):
    """What a document is written as."""

    PDF = "pdf"
    FACTUR_X = "facturx"
    FATTURAPA = "fatturapa"


class File(NamedTuple):
    """A document as a file."""

    name: str
    media_type: str
    content: bytes


class Page(NamedTuple):
    """The `size` documents of a kind that come after a key."""

    is_note: bool
    after: tuple[UUID, UUID]
    size: int = PAGE


@dataclass(frozen=True, slots=True)
class Month:
    """What is rendered, for whom and where to."""

    first: date
    until: date
    folder: Path
    formats: frozenset[Format]
    missing_only: bool = False


@dataclass(slots=True)
class Rendered:
    """What a run wrote.

    `refused` counts files that cannot be an e-invoice of the format; `broken` are the numbers of
    documents that could not be read or written, each with the reason.
    """

    documents: int = 0
    written: int = 0
    kept: int = 0
    refused: int = 0
    broken: dict[str, str] = field(default_factory=dict)

    def merge(self, other: "Rendered") -> None:
        """Add what another part of the run wrote."""
        self.documents += other.documents
        self.written += other.written
        self.kept += other.kept
        self.refused += other.refused
        self.broken |= other.broken


def find(tx: Tx, keyring: Keyring, number: str) -> View:
    """Return the invoice or credit note with a number, as it reads. Raises: Invalid, NotFound."""
    if is_note_number(number):
        return correcting.read_note(tx, keyring, correcting.find_note(tx, number))
    return actions.read(tx, keyring, actions.find_numbered(tx, number))


def is_note_number(number: str) -> bool:
    """Say whether a number is of the series of credit notes."""
    return f"{crediting.SERIES_SUFFIX}-" in number


def file_of(view: View, seller: Seller, as_format: Format) -> File:
    """Return a document as a file. Raises: Conflict when it cannot be an e-invoice."""
    if as_format is Format.PDF:
        name = f"{number_of(view)}.pdf"
        if isinstance(view, CreditNoteView):
            return File(name, "application/pdf", documents.note_pdf(view, seller))
        return File(name, "application/pdf", documents.pdf(view, seller))
    told = told_of(view, seller)
    if as_format is Format.FATTURAPA:
        content = fatturapa.write(told)
        return File(fatturapa.file_name(told), "application/xml", content)
    return File(f"{told.number}.xml", "application/xml", factur_x.write(told))


def told_of(view: View, seller: Seller) -> EInvoice:
    """Return what a document tells a tax authority."""
    if isinstance(view, CreditNoteView):
        return einvoices.of_note(view, seller)
    return einvoices.of(view, seller)


def number_of(view: View) -> str:
    """Return the number of a document."""
    if isinstance(view, CreditNoteView):
        return view.note.number_text
    return view.invoice.number_text


def month_of(year: int, month: int, folder: Path, formats: Collection[Format]) -> Month:
    """Return a month as what to render."""
    until = date(year + month // 12, month % 12 + 1, 1)
    return Month(date(year, month, 1), until, folder, frozenset(formats))


def render_new(
    database: Database, keyring: Keyring, seller: Seller, folder: Path, *, now: datetime
) -> Rendered:
    """Write the PDFs of this month and the last that are not there, in a folder a month.

    What is there stays as it was first written. Raises: as `render`.
    """
    done = Rendered()
    last = now.replace(day=1) - timedelta(days=1)
    for one in (last, now):
        place = folder / f"{one:%Y-%m}"
        month = month_of(one.year, one.month, place, {Format.PDF})
        month = replace(month, missing_only=True)
        with database.transaction() as tx:
            pages = pages_of(tx, month)
        if pages:
            done.merge(render(database, keyring, seller, month, pages))
    return done


def pages_of(tx: Tx, month: Month) -> list[Page]:
    """Return where each page of a month's documents begins, and how many it holds."""
    pages = []
    for is_note in (False, True):
        page = Page(is_note, _FIRST)
        while found := _listed(tx, month, page):
            pages.append(page._replace(size=len(found)))
            page = Page(is_note, _key(found[-1]))
    return pages


def render(
    database: Database,
    keyring: Keyring,
    seller: Seller,
    month: Month,
    pages: Sequence[Page],
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Rendered:
    """Write the documents of these pages; `progress` hears how many were looked at.

    Several `workers` are processes of their own. Raises: OSError when there is no place for them,
    Unavailable when no worker is left; what is written stays.
    """
    month.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if min(workers, len(pages)) > 1:
        hired = partial(_hired, database.dsn, keyring, seller, month)
        count = min(workers, len(pages))
        told = processes.share_out(hired, deque(pages), workers=count)
    else:
        work = _Printer(database, keyring, seller, month)
        told = ((page, work(page)) for page in pages)
    total = Rendered()
    for page, done in told:
        total.merge(done)
        if progress is not None:
            progress(page.size)
    return total


class _Printer:
    """Writes page after page of a month in one process."""

    def __init__(self, database: Database, keyring: Keyring, seller: Seller, month: Month) -> None:
        self._database = database
        self._keyring = keyring
        self._seller = seller
        self._month = month

    def __call__(self, page: Page) -> Rendered:
        """Write the documents of one page, each read in a transaction of its own."""
        month, done = self._month, Rendered()
        with self._database.transaction() as tx:
            found = _listed(tx, month, page)
        for one in found:
            if not month.first <= one.issued_on < month.until:
                continue
            done.documents += 1
            if self._is_there(one):
                done.kept += 1
                continue
            try:
                with self._database.transaction() as tx:
                    view = self._read(tx, one)
                self._write(view, done)
            except (Unavailable, OutcomeUnknown):
                raise
            except ConvergioError as error:
                done.broken[one.number_text] = str(error)
        return done

    def _is_there(self, one: Invoice | CreditNote) -> bool:
        """Say whether nothing is left to do, without reading the document."""
        only_pdf = self._month.missing_only and self._month.formats == {Format.PDF}
        return only_pdf and (self._month.folder / f"{one.number_text}.pdf").exists()

    def _read(self, tx: Tx, one: Invoice | CreditNote) -> View:
        if isinstance(one, CreditNote):
            return correcting.read_note(tx, self._keyring, one)
        return actions.read(tx, self._keyring, one)

    def _write(self, view: View, done: Rendered) -> None:
        for each in sorted(self._month.formats):
            try:
                made = file_of(view, self._seller, each)
            except Conflict:
                done.refused += 1
                continue
            path = self._month.folder / made.name
            if self._month.missing_only and path.exists():
                done.kept += 1
                continue
            write_whole(path, made.content)
            done.written += 1


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _hired(
    dsn: str, keyring: Keyring, seller: Seller, month: Month
) -> Iterator[Callable[[Page], Rendered]]:
    """Begin to work in a process of its own."""
    with Database(dsn, size_max=1) as database:
        yield _Printer(database, keyring, seller, month)


def _listed(tx: Tx, month: Month, page: Page) -> Sequence[Invoice | CreditNote]:
    """Return the documents of a page; credit notes of other months too, which are few."""
    if page.is_note:
        return correcting.notes(tx, after=page.after, limit=page.size)
    return actions.page(
        tx, after=page.after, limit=page.size, issued_from=month.first, issued_to=month.until
    )


def _key(one: Invoice | CreditNote) -> tuple[UUID, UUID]:
    if isinstance(one, CreditNote):
        return one.customer_id, one.credit_note_id
    return one.customer_id, one.invoice_id
