"""EN 16931 as UN/CEFACT XML (CII D16B), the syntax that Factur-X puts inside a PDF.

Follows EN 16931-1:2017 with its CII binding (CEN/TS 16931-3-3) and Factur-X 1.0 profile EN 16931.
Names of elements are written with their prefixes as they are, so nothing is looked up. This module
only writes; whoever reads XML from outside needs a parser with its doors shut.
"""

from datetime import date
from decimal import Decimal
from typing import Final
from xml.etree.ElementTree import Element

from convergio.billing import einvoices, wording
from convergio.billing.einvoices import EGroup, EInvoice, ELine
from convergio.billing.model import Buyer
from convergio.billing.xml_tree import add, add_some, written
from convergio.infra.settings import Seller
from convergio.rating.taxing import Treatment

PROFILE: Final = "urn:cen.eu:en16931:2017"
FILE_NAME: Final = "factur-x.xml"
_STANDARD: Final = "urn:un:unece:uncefact:data:standard"
_NAMESPACES: Final = {
    "xmlns:rsm": f"{_STANDARD}:CrossIndustryInvoice:100",
    "xmlns:ram": f"{_STANDARD}:ReusableAggregateBusinessInformationEntity:100",
    "xmlns:udt": f"{_STANDARD}:UnqualifiedDataType:100",
    "xmlns:qdt": f"{_STANDARD}:QualifiedDataType:100",
}
_TYPES: Final = {"invoice": "380", "credit_note": "381"}  # UNTDID 1001
# VATEX codes of the European Commission for why no tax is charged.
_REASON_CODES: Final = {
    Treatment.REVERSE_CHARGE: "VATEX-EU-AE",
    Treatment.EXPORT: "VATEX-EU-G",
    Treatment.NONE: "VATEX-EU-O",
}
_ONE: Final = "C62"  # UN/ECE recommendation 20: one
_DISCOUNT: Final = "95"  # UNTDID 5189: discount
_SEPA: Final = "58"  # UNTDID 4461: SEPA credit transfer
_TRANSFER: Final = "30"  # ... credit transfer
_CARD: Final = "48"  # ... bank card


def write(document: EInvoice) -> bytes:
    """Return a document as XML. Raises: Conflict when EN 16931 could not take it."""
    einvoices.require_possible(document.number, einvoices.problems(document))
    root = Element("rsm:CrossIndustryInvoice", _NAMESPACES)
    context = add(root, "rsm:ExchangedDocumentContext")
    add(add(context, "ram:GuidelineSpecifiedDocumentContextParameter"), "ram:ID", PROFILE)
    head = add(root, "rsm:ExchangedDocument")
    add(head, "ram:ID", document.number)
    add(head, "ram:TypeCode", _TYPES[document.kind])
    _day(head, "ram:IssueDateTime", document.issued_on)
    for note in (document.note, _rate(document)):
        if note:
            add(add(head, "ram:IncludedNote"), "ram:Content", note)
    trade = add(root, "rsm:SupplyChainTradeTransaction")
    for line in document.lines:
        _line(trade, line, document)
    _agreement(trade, document)
    delivered = add(trade, "ram:ApplicableHeaderTradeDelivery")
    place = add(add(delivered, "ram:ShipToTradeParty"), "ram:PostalTradeAddress")
    add(place, "ram:CountryID", document.buyer.country or "")
    _settlement(trade, document)
    return written(root)


def _rate(document: EInvoice) -> str | None:
    """Return what the tax in the seller's currency was converted at, which has no element."""
    if document.stated is None or document.kept.exchange is None:
        return None
    language = wording.language_of(document.buyer.locale)
    return wording.exchange_rate(document.kept.exchange, document.currency, language)


def _line(trade: Element, line: ELine, document: EInvoice) -> None:
    """Write a line: the price is never below zero (BR-27), so a line below zero takes back one."""
    item = add(trade, "ram:IncludedSupplyChainTradeLineItem")
    add(add(item, "ram:AssociatedDocumentLineDocument"), "ram:LineID", str(line.number))
    add(add(item, "ram:SpecifiedTradeProduct"), "ram:Name", line.name)
    price, quantity = document.text(abs(line.amount)), "1" if line.amount >= 0 else "-1"
    if line.quantity is not None and line.unit_price is not None:
        price, quantity = f"{line.unit_price:f}", f"{line.quantity.normalize():f}"
    agreed = add(item, "ram:SpecifiedLineTradeAgreement")
    add(add(agreed, "ram:NetPriceProductTradePrice"), "ram:ChargeAmount", price)
    delivered = add(item, "ram:SpecifiedLineTradeDelivery")
    add(delivered, "ram:BilledQuantity", quantity, unitCode=_ONE)
    settled = add(item, "ram:SpecifiedLineTradeSettlement")
    tax = add(settled, "ram:ApplicableTradeTax")
    add(tax, "ram:TypeCode", "VAT")
    _category(tax, line.treatment, line.rate)
    _period(settled, line.first_day, line.last_day)
    if line.discount:
        _discount(settled, line.discount, document)
    total = add(settled, "ram:SpecifiedTradeSettlementLineMonetarySummation")
    add(total, "ram:LineTotalAmount", document.text(line.net))


def _discount(settled: Element, discount: int, document: EInvoice) -> None:
    """Write the discount of a line; of a line below zero it is a charge."""
    allowance = add(settled, "ram:SpecifiedTradeAllowanceCharge")
    is_charge = discount < 0
    add(add(allowance, "ram:ChargeIndicator"), "udt:Indicator", str(is_charge).lower())
    add(allowance, "ram:ActualAmount", document.text(abs(discount)))
    if not is_charge:
        add(allowance, "ram:ReasonCode", _DISCOUNT)
    language = wording.language_of(document.buyer.locale)
    add(allowance, "ram:Reason", wording.WORDS[language]["discount"])


def _agreement(trade: Element, document: EInvoice) -> None:
    untaxed = all(group.treatment == Treatment.NONE for group in document.groups)
    agreed = add(trade, "ram:ApplicableHeaderTradeAgreement")
    _seller(add(agreed, "ram:SellerTradeParty"), document.seller, untaxed=untaxed)
    _buyer(add(agreed, "ram:BuyerTradeParty"), document.buyer, untaxed=untaxed)
    if document.buyer.purchase_order:
        order = add(agreed, "ram:BuyerOrderReferencedDocument")
        add(order, "ram:IssuerAssignedID", document.buyer.purchase_order)


def _seller(party: Element, seller: Seller, *, untaxed: bool) -> None:
    """Write who sells; outside of any tax no VAT number may appear (BR-O-02)."""
    add(party, "ram:Name", seller.name)
    add_some(party, "ram:Description", seller.legal_form)
    if seller.tax_number:
        add(add(party, "ram:SpecifiedLegalOrganization"), "ram:ID", seller.tax_number)
    address = add(party, "ram:PostalTradeAddress")
    add_some(address, "ram:PostcodeCode", seller.postal_code)
    add_some(address, "ram:LineOne", seller.street or (seller.address if not seller.city else ""))
    add_some(address, "ram:CityName", seller.city)
    add(address, "ram:CountryID", seller.country)
    add_some(address, "ram:CountrySubDivisionName", seller.region)
    _mail(party, seller.email)
    if not untaxed:
        _registered(party, einvoices.vat_number(seller.tax_id, seller.country))


def _buyer(party: Element, buyer: Buyer, *, untaxed: bool) -> None:
    """Write who buys, as known on the day of issue."""
    add(party, "ram:Name", buyer.name or buyer.key)
    address = add(party, "ram:PostalTradeAddress")
    add_some(address, "ram:PostcodeCode", buyer.postal_code)
    add_some(address, "ram:LineOne", buyer.street or (buyer.address if not buyer.city else None))
    add_some(address, "ram:CityName", buyer.city)
    add(address, "ram:CountryID", buyer.country or "")
    add_some(address, "ram:CountrySubDivisionName", buyer.region)
    _mail(party, buyer.email)
    if not untaxed:
        _registered(party, einvoices.vat_number(buyer.tax_id, buyer.country))


def _mail(party: Element, address: str | None) -> None:
    if address:
        add(add(party, "ram:URIUniversalCommunication"), "ram:URIID", address, schemeID="EM")


def _registered(party: Element, number: str | None) -> None:
    if number:
        add(add(party, "ram:SpecifiedTaxRegistration"), "ram:ID", number, schemeID="VA")


def _settlement(trade: Element, document: EInvoice) -> None:
    settled = add(trade, "ram:ApplicableHeaderTradeSettlement")
    add(settled, "ram:PaymentReference", document.number)
    if document.stated is not None:
        add(settled, "ram:TaxCurrencyCode", document.stated[0].upper())
    add(settled, "ram:InvoiceCurrencyCode", document.currency.upper())
    if document.kind == "invoice":
        _means(settled, document)
    for group in document.groups:
        _group(settled, group, document)
    if document.lines:
        first = min(line.first_day for line in document.lines)
        _period(settled, first, max(line.last_day for line in document.lines))
    terms = add(settled, "ram:SpecifiedTradePaymentTerms")
    if document.due_on is not None:
        _day(terms, "ram:DueDateDateTime", document.due_on)
    else:
        language = wording.language_of(document.buyer.locale)
        add(terms, "ram:Description", wording.WORDS[language]["note_terms"])
    _sums(settled, document)
    if document.origin is not None:
        origin = add(settled, "ram:InvoiceReferencedDocument")
        add(origin, "ram:IssuerAssignedID", document.origin[0])
        _day(origin, "ram:FormattedIssueDateTime", document.origin[1], "qdt")


def _means(settled: Element, document: EInvoice) -> None:
    """Write how it is paid; a transfer needs the account that it goes to (BR-61)."""
    seller = document.seller
    if document.buyer.by_transfer and not seller.iban:
        return
    means = add(settled, "ram:SpecifiedTradeSettlementPaymentMeans")
    if not document.buyer.by_transfer:
        add(means, "ram:TypeCode", _CARD)
        return
    add(means, "ram:TypeCode", _SEPA if document.currency == "eur" else _TRANSFER)
    account = add(means, "ram:PayeePartyCreditorFinancialAccount")
    add(account, "ram:IBANID", seller.iban)
    add(account, "ram:AccountName", seller.name)
    if seller.bic:
        add(add(means, "ram:PayeeSpecifiedCreditorFinancialInstitution"), "ram:BICID", seller.bic)


def _group(settled: Element, group: EGroup, document: EInvoice) -> None:
    tax = add(settled, "ram:ApplicableTradeTax")
    add(tax, "ram:CalculatedAmount", document.text(group.tax))
    add(tax, "ram:TypeCode", "VAT")
    says_why = group.treatment not in {Treatment.STANDARD, Treatment.ZERO}
    if says_why:
        add(tax, "ram:ExemptionReason", group.why)
    add(tax, "ram:BasisAmount", document.text(group.net))
    _category(tax, group.treatment, group.rate, code=_REASON_CODES.get(group.treatment))


def _category(
    tax: Element, treatment: Treatment, rate: Decimal, *, code: str | None = None
) -> None:
    """Write category and rate; what is outside of any tax has no rate (BR-O-05)."""
    add(tax, "ram:CategoryCode", einvoices.CODES[treatment])
    add_some(tax, "ram:ExemptionReasonCode", code)
    if treatment != Treatment.NONE:
        add(tax, "ram:RateApplicablePercent", f"{rate.normalize() + 0:f}")


def _sums(settled: Element, document: EInvoice) -> None:
    sums = add(settled, "ram:SpecifiedTradeSettlementHeaderMonetarySummation")
    add(sums, "ram:LineTotalAmount", document.text(document.net))
    add(sums, "ram:TaxBasisTotalAmount", document.text(document.net))
    tax = document.text(document.tax)
    add(sums, "ram:TaxTotalAmount", tax, currencyID=document.currency.upper())
    if document.stated is not None:
        currency, minor = document.stated
        told = einvoices.amount_text(minor, currency)
        add(sums, "ram:TaxTotalAmount", told, currencyID=currency.upper())
    add(sums, "ram:GrandTotalAmount", document.text(document.total))
    if document.settled:
        add(sums, "ram:TotalPrepaidAmount", document.text(document.settled))
    add(sums, "ram:DuePayableAmount", document.text(document.total - document.settled))


def _period(parent: Element, first: date, last: date) -> None:
    period = add(parent, "ram:BillingSpecifiedPeriod")
    _day(period, "ram:StartDateTime", first)
    _day(period, "ram:EndDateTime", last)


def _day(parent: Element, tag: str, day: date, prefix: str = "udt") -> None:
    """Write a day as UNTDID 2379 form 102: 20250131."""
    add(add(parent, tag), f"{prefix}:DateTimeString", f"{day:%Y%m%d}", format="102")
