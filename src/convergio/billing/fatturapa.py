"""FatturaPA: the Italian e-invoice between private parties (format FPR12, schema 1.2.3).

Follows the technical rules of the Sistema di Interscambio (provvedimento 89757/2018 and its annex A
1.9). Texts are Latin-1 and short, so letters beyond it are written in their nearest form. The code
of a nature says why a line has no Italian tax.

All amounts are in euros. A document in another currency is written at the rate that it keeps, and
each line says what it was. A sale that bears the tax of another member state (N7, the one-stop
shop) has no Italian tax: the foreign tax is a line of its own, so that the total is what is paid.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Final
from xml.etree.ElementTree import Element

from convergio.billing import einvoices, sellers, wording
from convergio.billing.einvoices import EGroup, EInvoice, ELine
from convergio.billing.model import Buyer
from convergio.billing.xml_tree import add, add_some, written
from convergio.infra.settings import Seller
from convergio.kernel.money import Money
from convergio.rating.taxing import EUROPEAN_UNION, Treatment
from convergio.taxes import reference

FORMAT: Final = "FPR12"
_NAMESPACE: Final = "http://ivaservizi.agenziaentrate.gov.it/docs/xsd/fatture/v1.2"
_TYPES: Final = {"invoice": "TD01", "credit_note": "TD04"}
_ABROAD: Final = "XXXXXXX"  # the recipient's code of whoever is not in Italy
_NO_CODE: Final = "0000000"  # ... of one who gave none: the file waits in their own tax drawer
_NO_NUMBER: Final = "OO99999999999"  # the number of a buyer outside of the Union who gave none
_VAT_NUMBER: Final = re.compile(r"[0-9]{11}", re.ASCII)
_PERSON: Final = re.compile(r"[A-Z0-9]{16}", re.ASCII)
_CAP: Final = re.compile(r"[0-9]{5}", re.ASCII)
_PROVINCE: Final = re.compile(r"[A-Z]{2}", re.ASCII)
_NUMBER_SIZE: Final = 20
_LATIN_LAST: Final = 0xFF
_QUANTITY_PLACES: Final = 8
_RATE_PLACES: Final = 2
ZERO: Final = Decimal(0)
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NEAREST: Final = {
    "\u20ac": "EUR", "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2018": "'", "\u2019": "'",
    "\u201c": '"', "\u201d": '"', "Ł": "L", "ł": "l", "Đ": "D", "đ": "d", "\u0131": "i", "Œ": "OE",
    "œ": "oe",
}  # fmt: skip
_OTHER_STATE: Final = "N7"
_REVERSED: Final = "N6.9"
# Why there is no Italian tax, in the words that article 21(6-bis) of DPR 633/1972 asks for.
_LAWS: Final = {
    Treatment.STANDARD: "IVA assolta in altro Stato UE (artt. 7-sexies e 74-sexies DPR 633/1972)",
    Treatment.ZERO: "IVA assolta in altro Stato UE (artt. 7-sexies e 74-sexies DPR 633/1972)",
    Treatment.EXEMPT: "Operazione esente",
    Treatment.REVERSE_CHARGE: "Inversione contabile (art. 7-ter DPR 633/1972)",
    Treatment.EXPORT: "Operazione non soggetta (artt. da 7 a 7-septies DPR 633/1972)",
    Treatment.NONE: "Operazione non soggetta a imposta",
}
_AT_HOME: Final = "Inversione contabile (art. 17 DPR 633/1972)"
_STAMPED: Final = frozenset({"N2.1", "N2.2", "N3.5", "N3.6", "N4"})
_STAMP_ABOVE: Final = 7_747  # 77.47 euros, DPR 642/1972
_NO_NAME: Final = (
    "no number of a file is left in its series and year: issue in another one, by setting"
    " CONVERGIO_SELLER_SERIES"
)


def file_name(document: EInvoice) -> str:
    """Return the name that the file must have: the sender and a progressive of five signs."""
    return f"IT{_seller_number(document.seller)}_{progressive(document)}.xml"


def progressive(document: EInvoice) -> str:
    """Return the number of a transmission in five signs: a function of the document's number.

    Each series and year has a block of ten million. Raises: Conflict where none is left.
    """
    block = document.block if document.sequence < sellers.NUMBERS_A_BLOCK else None
    einvoices.require_possible(document.number, [_NO_NAME] if block is None else [])
    index = (block or 0) * sellers.NUMBERS_A_BLOCK + document.sequence
    signs = ""
    for _ in range(5):
        index, sign = divmod(index, len(_DIGITS))
        signs = _DIGITS[sign] + signs
    return signs


def problems(document: EInvoice) -> list[str]:
    """Return what keeps the Sistema di Interscambio from taking a document; usually nothing."""
    seller, buyer = document.seller, document.buyer
    found = []
    if seller.country != "IT" or not _VAT_NUMBER.fullmatch(_seller_number(seller)):
        found.append("the seller has no Italian VAT number: set CONVERGIO_SELLER_TAX_ID")
    if not (seller.street and _CAP.fullmatch(seller.postal_code) and seller.city):
        found.append("the seller has no address in parts: set CONVERGIO_SELLER_STREET and so on")
    if not document.groups:
        found.append("no tax is configured: see `convergio tax --help`")
    if document.currency != "eur" and (document.stated is None or document.stated[0] != "eur"):
        found.append("amounts must be in euros, and it was issued without a rate: see `tax rates`")
    if len(document.number) > _NUMBER_SIZE:
        found.append("its number is longer than 20 signs: choose a shorter CONVERGIO_SELLER_SERIES")
    if not (buyer.country and buyer.street and buyer.city):
        found.append("the customer has no address in parts: customer update --street --city")
    if buyer.country == "IT":
        if not _CAP.fullmatch(buyer.postal_code or ""):
            found.append("the customer has no postal code: customer update --postal-code")
        if not any(_italian_numbers(buyer)):
            found.append("the customer has no VAT number or codice fiscale: update --tax-id")
    return found + [why for group in document.groups if (why := _strange(group, document))]


def _strange(group: EGroup, document: EInvoice) -> str | None:
    """Return why a group of lines has no place in the Italian format, or None."""
    if group.treatment == Treatment.ZERO and _is_italian(document):
        return "Italy has no rate of zero: call the lines exempt"
    if group.treatment == Treatment.STANDARD and document.buyer.country != "IT":
        if _taxed_in(document) is None:
            return (
                "it does not say which country's tax it bears: it was issued before that was kept"
            )
        if _taxed_in(document) not in EUROPEAN_UNION:
            return "a tax from outside of the European Union has no place in it"
    if _is_italian(document) and round(group.rate, _RATE_PLACES) != group.rate:
        return "a rate has more than two decimals"
    return None


def write(document: EInvoice) -> bytes:
    """Return a document as XML. Raises: Conflict when SdI could not take it."""
    einvoices.require_possible(document.number, problems(document))
    document = in_euros(document)
    attributes = {"xmlns:p": _NAMESPACE, "versione": FORMAT}
    root = Element("p:FatturaElettronica", attributes)
    head = add(root, "FatturaElettronicaHeader")
    _transmission(head, document)
    _seller(add(head, "CedentePrestatore"), document.seller)
    _buyer(add(head, "CessionarioCommittente"), document.buyer)
    body = add(root, "FatturaElettronicaBody")
    _general(add(body, "DatiGenerali"), document)
    goods = add(body, "DatiBeniServizi")
    for line in document.lines:
        _line(goods, line, document)
    summary = _summary(document)
    number = max((line.number for line in document.lines), default=0)
    for group in document.groups:
        if _nature(group.treatment, document) == _OTHER_STATE and group.tax:
            number += 1
            _foreign_tax(goods, number, group, document)
    for one in summary:
        _group(goods, one, document)
    due = document.total - document.settled
    if document.kind == "invoice" and due:
        _payment(body, document, due)
    return written(root)


def _transmission(head: Element, document: EInvoice) -> None:
    buyer = document.buyer
    sent = add(head, "DatiTrasmissione")
    _vat_id(sent, "IdTrasmittente", "IT", _seller_number(document.seller))
    add(sent, "ProgressivoInvio", progressive(document))
    add(sent, "FormatoTrasmissione", FORMAT)
    code = buyer.sdi_code or _NO_CODE
    add(sent, "CodiceDestinatario", code if buyer.country == "IT" else _ABROAD)
    if buyer.country == "IT" and not buyer.sdi_code:
        add_some(sent, "PECDestinatario", buyer.pec)


def _seller(party: Element, seller: Seller) -> None:
    known = add(party, "DatiAnagrafici")
    _vat_id(known, "IdFiscaleIVA", "IT", _seller_number(seller))
    add_some(known, "CodiceFiscale", seller.tax_number)
    add(add(known, "Anagrafica"), "Denominazione", latin(seller.name, 80))
    add(known, "RegimeFiscale", seller.regime)
    region, place = seller.region, add(party, "Sede")
    _address(place, seller.street, seller.postal_code, seller.city, region, seller.country)


def _buyer(party: Element, buyer: Buyer) -> None:
    known = add(party, "DatiAnagrafici")
    if buyer.country == "IT":
        number, person = _italian_numbers(buyer)
        if number:
            _vat_id(known, "IdFiscaleIVA", "IT", number)
        add_some(known, "CodiceFiscale", person)
    else:
        country = buyer.country or ""
        number = re.sub(r"[\s.-]", "", buyer.tax_id or "").upper() or _NO_NUMBER
        if country in EUROPEAN_UNION:
            number = (einvoices.vat_number(buyer.tax_id, country) or "")[2:] or _NO_CODE
        _vat_id(known, "IdFiscaleIVA", country, latin(number, 28))
    add(add(known, "Anagrafica"), "Denominazione", latin(buyer.name or buyer.key, 80))
    place, street, postal_code = add(party, "Sede"), buyer.street or "", buyer.postal_code or ""
    if buyer.country != "IT":  # a foreign code has no place of its own
        street, postal_code = f"{street}, {postal_code}".rstrip(", "), "00000"
    _address(place, street, postal_code, buyer.city, buyer.region, buyer.country)


def _address(  # noqa: PLR0917 - the parts of an address
    place: Element,
    street: str,
    postal_code: str,
    city: str | None,
    region: str | None,
    country: str | None,
) -> None:
    add(place, "Indirizzo", latin(street, 60))
    add(place, "CAP", postal_code)
    add(place, "Comune", latin(city or "", 60))
    if country == "IT" and _PROVINCE.fullmatch(region or ""):
        add(place, "Provincia", region)
    add(place, "Nazione", country)


def _general(general: Element, document: EInvoice) -> None:
    known = add(general, "DatiGeneraliDocumento")
    add(known, "TipoDocumento", _TYPES[document.kind])
    add(known, "Divisa", document.currency.upper())
    add(known, "Data", document.issued_on.isoformat())
    add(known, "Numero", document.number)
    stamped = sum(one.net for one in _summary(document) if one.nature in _STAMPED)
    if stamped > _STAMP_ABOVE and Decimal(document.seller.stamp_duty):
        stamp = add(known, "DatiBollo")
        add(stamp, "BolloVirtuale", "SI")
        add(stamp, "ImportoBollo", document.seller.stamp_duty)
    add(known, "ImportoTotaleDocumento", document.text(document.total))
    order = document.buyer.purchase_order
    long_order = order is not None and not _is_short(order)
    for cause in (document.note, order if long_order else None, _rate(document)):
        add_some(known, "Causale", latin(cause, 200) if cause else None)
    if order is not None and not long_order:
        add(add(general, "DatiOrdineAcquisto"), "IdDocumento", order)
    if document.origin is not None:
        origin = add(general, "DatiFattureCollegate")
        add(origin, "IdDocumento", document.origin[0])
        add(origin, "Data", document.origin[1].isoformat())


def _line(goods: Element, line: ELine, document: EInvoice) -> None:
    """Write a line: a discount is of the price of one, so a line with one has no quantity.

    One that gives back nothing has no price below zero.
    """
    row = add(goods, "DettaglioLinee")
    add(row, "NumeroLinea", str(line.number))
    add(row, "Descrizione", latin(line.name, 1000))
    price = document.text(line.amount if line.net or line.amount > 0 else 0)
    if not line.discount and line.quantity and line.unit_price is not None:
        quantity, unit = _places(line.quantity), _places(line.unit_price)
        if quantity and unit:
            add(row, "Quantita", quantity)
            price = unit
    _period(row, line.first_day, line.last_day)
    add(row, "PrezzoUnitario", price)
    if line.discount and (line.net or line.amount > 0):
        change = add(row, "ScontoMaggiorazione")
        add(change, "Tipo", "SC" if line.discount > 0 else "MG")
        add(change, "Importo", document.text(abs(line.discount)))
    add(row, "PrezzoTotale", document.text(line.net))
    nature = _nature(line.treatment, document)
    add(row, "AliquotaIVA", f"{line.rate if nature is None else ZERO:.2f}")
    add_some(row, "Natura", nature)
    if line.foreign is not None:
        other = add(row, "AltriDatiGestionali")
        add(other, "TipoDato", "VALUTA")
        add(other, "RiferimentoTesto", line.foreign.currency.upper())
        add(other, "RiferimentoNumero", f"{Decimal(line.foreign.text()):.2f}")


def _foreign_tax(goods: Element, number: int, group: EGroup, document: EInvoice) -> None:
    """Write the tax of another member state as a line, for there is no other place for it."""
    row = add(goods, "DettaglioLinee")
    add(row, "NumeroLinea", str(number))
    country = wording.country_name(_taxed_in(document) or "", "it")
    rate = wording.percent(group.rate, "it")
    add(row, "Descrizione", latin(f"IVA {country} {rate} (regime OSS)", 1000))
    add(row, "PrezzoUnitario", document.text(group.tax))
    add(row, "PrezzoTotale", document.text(group.tax))
    add(row, "AliquotaIVA", "0.00")
    add(row, "Natura", _OTHER_STATE)


@dataclass(frozen=True, slots=True)
class _Sum:
    """What lines of one rate and nature come to: SdI wants each pair once."""

    rate: Decimal
    nature: str | None
    net: int
    tax: int
    why: str


def _summary(document: EInvoice) -> list[_Sum]:
    """Return the sums by rate and nature; a foreign tax is part of what is not taxed here."""
    sums: dict[tuple[Decimal, str | None], _Sum] = {}
    for group in document.groups:
        nature = _nature(group.treatment, document)
        rate, net, tax, why = group.rate, group.net, group.tax, ""
        if nature is not None:
            rate, net, tax = ZERO, net + tax, 0
            why = group.own or (_AT_HOME if nature == _REVERSED else _LAWS[group.treatment])
        before = sums.get((rate, nature), _Sum(rate, nature, 0, 0, why))
        sums[rate, nature] = replace(before, net=before.net + net, tax=before.tax + tax)
    return list(sums.values())


def _group(goods: Element, one: _Sum, document: EInvoice) -> None:
    row = add(goods, "DatiRiepilogo")
    add(row, "AliquotaIVA", f"{one.rate:.2f}")
    add_some(row, "Natura", one.nature)
    add(row, "ImponibileImporto", document.text(one.net))
    add(row, "Imposta", document.text(one.tax))
    if one.nature is None:
        add(row, "EsigibilitaIVA", "I")
    else:
        add(row, "RiferimentoNormativo", latin(one.why, 100))


def _payment(body: Element, document: EInvoice, due: int) -> None:
    """Write how and when what is due is paid: by transfer, or by card."""
    seller = document.seller
    payment = add(body, "DatiPagamento")
    add(payment, "CondizioniPagamento", "TP02")
    way = add(payment, "DettaglioPagamento")
    by_transfer = document.buyer.by_transfer
    add(way, "ModalitaPagamento", "MP05" if by_transfer else "MP08")
    if document.due_on is not None:
        add(way, "DataScadenzaPagamento", document.due_on.isoformat())
    add(way, "ImportoPagamento", document.text(due))
    if by_transfer:
        add_some(way, "IBAN", seller.iban)
        add_some(way, "BIC", seller.bic if seller.iban else None)


def _nature(treatment: Treatment, document: EInvoice) -> str | None:
    """Return why lines bear no Italian tax, as the code that SdI knows; None for those that do.

    What is sold here are services: abroad they are outside of Italian tax by articles 7 to
    7-septies of DPR 633/1972 (N2.1), at home a reverse charge is the rest of its cases (N6.9).
    """
    at_home = document.buyer.country == "IT"
    if treatment in {Treatment.STANDARD, Treatment.ZERO} and not _is_italian(document):
        return _OTHER_STATE
    return {
        Treatment.STANDARD: None,
        Treatment.EXEMPT: "N4" if _is_italian(document) else "N2.1",
        Treatment.REVERSE_CHARGE: _REVERSED if at_home else "N2.1",
        Treatment.EXPORT: "N2.1",
        Treatment.NONE: "N2.2",
    }[treatment]


def _taxed_in(document: EInvoice) -> str | None:
    """Return the country whose tax a document bears; None where that was not kept."""
    place = document.kept.place
    if place is not None and place.country is not None:
        return place.country
    return "IT" if document.buyer.country == "IT" else None


def _is_italian(document: EInvoice) -> bool:
    return _taxed_in(document) in {"IT", None}


def _rate(document: EInvoice) -> str | None:
    """Return what the document was converted at."""
    by = document.kept.exchange
    foreign = next((line.foreign for line in document.lines if line.foreign), None)
    if by is None or foreign is None:
        return None
    return f"Importi convertiti: {wording.exchange_rate(by, foreign.currency, 'it')}"


def in_euros(document: EInvoice) -> EInvoice:
    """Return a document with all of its amounts in euros, as far as it states them.

    Net and tax of a group are what it states; its lines share the net by largest remainder, and
    have no quantity, for the price of one need not be a number of cents. Where anything is settled,
    what is due is converted and the rest is settled: what is paid is paid in euros too.
    """
    by = document.kept.exchange
    if document.currency == "eur" or by is None:
        return document
    groups = tuple(replace(one, net=one.stated_net, tax=one.stated_tax) for one in document.groups)
    nets: dict[int, int] = {}
    for group in groups:
        lines = [
            one for one in document.lines
            if (one.treatment, one.rate) == (group.treatment, group.rate)
        ]  # fmt: skip
        weights = [one.net for one in lines]
        parts = einvoices.shared(group.net, weights) if sum(weights) else [0] * len(lines)
        nets |= {one.number: part for one, part in zip(lines, parts, strict=True)}
    lines = [
        replace(
            one,
            amount=nets[one.number],
            discount=0,
            quantity=None,
            unit_price=None,
            foreign=Money(one.net, document.currency),
        )
        for one in document.lines
    ]
    made = replace(document, currency="eur", lines=tuple(lines), groups=groups, settled=0)
    if not document.settled:
        return made
    due = reference.converted(document.total - document.settled, document.currency, by)
    return replace(made, settled=max(0, made.total - due))


def _vat_id(parent: Element, tag: str, country: str, number: str) -> None:
    known = add(parent, tag)
    add(known, "IdPaese", country)
    add(known, "IdCodice", number)


def _period(row: Element, first: date, last: date) -> None:
    add(row, "DataInizioPeriodo", first.isoformat())
    add(row, "DataFinePeriodo", last.isoformat())


def _seller_number(seller: Seller) -> str:
    return (einvoices.vat_number(seller.tax_id, "IT") or "").removeprefix("IT")


def _italian_numbers(buyer: Buyer) -> tuple[str | None, str | None]:
    """Return an Italian buyer's VAT number and codice fiscale, as far as they are known."""
    text = re.sub(r"[\s.-]", "", buyer.tax_id or "").upper().removeprefix("IT")
    number = text if _VAT_NUMBER.fullmatch(text) else None
    return number, text if _PERSON.fullmatch(text) else None


def _is_short(order: str) -> bool:
    return order.isascii() and len(order) <= _NUMBER_SIZE


def _places(value: Decimal) -> str | None:
    """Return a number with two to eight decimals, or None when it has more."""
    cut = value.quantize(Decimal(1).scaleb(-_QUANTITY_PLACES))
    if cut != value:
        return None
    whole, _, decimals = f"{cut:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def latin(text: str, size: int) -> str:
    """Return text in Latin-1 and at most so long: letters beyond it in their nearest form."""
    written_so = "".join(_letter(letter) for letter in wording.plain(text))
    return " ".join(written_so.split())[:size].strip() or "-"


def _letter(letter: str) -> str:
    if ord(letter) <= _LATIN_LAST:
        return letter
    near = "".join(one for one in unicodedata.normalize("NFKD", letter) if ord(one) <= _LATIN_LAST)
    return near or _NEAREST.get(letter, "?")
