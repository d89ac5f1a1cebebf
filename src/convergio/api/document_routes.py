"""Documents over HTTP: an invoice or a credit note as PDF, and as XML of either format.

The bytes are those of the command line. A document that cannot be an e-invoice of a format answers
409 with all the reasons.
"""

from typing import Annotated, Final, Literal

from litestar import Response, get
from litestar.params import FromPath, FromQuery, QueryParameter

from convergio.api.requests import Anyone, needs, principal_of, product_of
from convergio.billing import actions as billing
from convergio.billing import correcting, rendering
from convergio.billing.errors import unknown_invoice, unknown_note
from convergio.billing.rendering import Format, View
from convergio.identity.model import Scope

XmlFormat = Annotated[Literal["facturx", "fatturapa"], QueryParameter(name="format")]


@get("/v1/invoices/{number:str}/pdf", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def invoice_pdf(request: Anyone, number: FromPath[str]) -> Response[bytes]:
    """Return an invoice as PDF, with its e-invoice inside where tax is configured."""
    return _file(request, _invoice(request, number), Format.PDF)


@get("/v1/invoices/{number:str}/xml", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def invoice_xml(
    request: Anyone, number: FromPath[str], form: FromQuery[XmlFormat] = "facturx"
) -> Response[bytes]:
    """Return an invoice as XML: EN 16931 (`facturx`), or Italian (`fatturapa`)."""
    return _file(request, _invoice(request, number), Format(form))


@get("/v1/credit-notes/{number:str}/pdf", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def credit_note_pdf(request: Anyone, number: FromPath[str]) -> Response[bytes]:
    """Return a credit note as PDF, with its e-invoice inside where tax is configured."""
    return _file(request, _note(request, number), Format.PDF)


@get("/v1/credit-notes/{number:str}/xml", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def credit_note_xml(
    request: Anyone, number: FromPath[str], form: FromQuery[XmlFormat] = "facturx"
) -> Response[bytes]:
    """Return a credit note as XML: EN 16931 (`facturx`), or Italian (`fatturapa`)."""
    return _file(request, _note(request, number), Format(form))


DOCUMENT_ROUTES: Final = (invoice_pdf, invoice_xml, credit_note_pdf, credit_note_xml)


def _invoice(request: Anyone, number: str) -> View:
    product, principal = product_of(request), principal_of(request)
    with product.database.transaction() as tx:
        found = billing.find_numbered(tx, number)
        if principal.customer_id not in {None, found.customer_id}:
            raise unknown_invoice()
        return billing.read(tx, product.keyring, found)


def _note(request: Anyone, number: str) -> View:
    product, principal = product_of(request), principal_of(request)
    with product.database.transaction() as tx:
        found = correcting.find_note(tx, number)
        if principal.customer_id not in {None, found.customer_id}:
            raise unknown_note()
        return correcting.read_note(tx, product.keyring, found)


def _file(request: Anyone, view: View, as_format: Format) -> Response[bytes]:
    file = rendering.file_of(view, product_of(request).settings.seller, as_format)
    headers = {"content-disposition": f'attachment; filename="{file.name}"'}
    return Response(file.content, media_type=file.media_type, headers=headers)
