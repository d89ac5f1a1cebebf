"""The words of a document: labels, legal sentences, and how its reader writes numbers and days.

One idea: whatever stands on a page or in an e-invoice is worded here, in the reader's language, so
that the PDF and the XML inside it say the same. Pure: no clock, no network, no database.
"""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Final, Literal

from babel import Locale
from babel.dates import format_date, format_interval
from babel.numbers import format_currency, format_decimal

from convergio.billing.model import InvoiceLine
from convergio.kernel.money import Money
from convergio.kernel.periods import Period, zone
from convergio.rating.taxing import EUROPEAN_UNION, REASONS, Treatment
from convergio.taxes.model import Exchange

Language = Literal["en", "it"]

WORDS: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {
        "invoice": "Invoice",
        "credit_note": "Credit note",
        "from": "From",
        "bill_to": "Bill to",
        "number": "Invoice number",
        "note_number": "Credit note number",
        "issued": "Date of issue",
        "due": "Date due",
        "of_invoice": "Of invoice",
        "customer": "Customer",
        "purchase_order": "Purchase order",
        "description": "Description",
        "quantity": "Quantity",
        "unit_price": "Unit price",
        "amount": "Amount",
        "discount": "Discount",
        "subtotal": "Subtotal",
        "net": "Net",
        "rate": "Rate",
        "tax": "VAT",
        "tax_elsewhere": "Tax",
        "tax_inside": "{tax} included",
        "tax_in": "{tax} in {currency}",
        "rate_of": "{rates} ({source}, {day})",
        "by_card": "Charged to your payment method on file",
        "total": "Total",
        "total_credited": "Total credited",
        "applied": "Taken off the invoice",
        "to_balance": "To your credit balance",
        "note_terms": "Taken off the invoice first; the rest is the customer's credit balance.",
        "from_balance": "Paid from credit balance",
        "credited": "Credited",
        "paid": "Paid",
        "amount_due": "Amount due",
        "tax_id": "Tax ID",
        "page": "Page",
        "carried": "Carried forward",
        "brought": "Brought forward",
        "further": "Further lines: {count} (the account lists them)",
        "payment": "Payment",
        "transfer": "Bank transfer to {name}",
        "reference": "Reference",
        "reason": "Reason",
        "open_headline": "Due by {due}",
        "paid_headline": "Paid in full",
        "zero_headline": "Nothing to pay",
        "void_headline": "Void: nothing is due",
        "note_headline": "Credit for invoice {invoice} of {day}",
        "late_usage": "usage of an earlier period",
        "late_fee": "fee of an earlier period",
        "credit_usage": "credit for corrected usage",
        "credit_fee": "credit for unused time",
    },
    "it": {
        "invoice": "Fattura",
        "credit_note": "Nota di credito",
        "from": "Emessa da",
        "bill_to": "Intestata a",
        "number": "Numero fattura",
        "note_number": "Numero nota di credito",
        "issued": "Data di emissione",
        "due": "Scadenza",
        "of_invoice": "Fattura collegata",
        "customer": "Cliente",
        "purchase_order": "Ordine di acquisto",
        "description": "Descrizione",
        "quantity": "Quantità",
        "unit_price": "Prezzo unitario",
        "amount": "Importo",
        "discount": "Sconto",
        "subtotal": "Subtotale",
        "net": "Imponibile",
        "rate": "Aliquota",
        "tax": "IVA",
        "tax_elsewhere": "Imposta",
        "tax_inside": "di cui {tax}",
        "tax_in": "{tax} in {currency}",
        "rate_of": "{rates} ({source}, {day})",
        "by_card": "Addebito sul metodo di pagamento registrato",
        "total": "Totale",
        "total_credited": "Totale accreditato",
        "applied": "Detratto dalla fattura",
        "to_balance": "Al vostro credito",
        "note_terms": "Detratto prima dalla fattura; il resto è a credito del cliente.",
        "from_balance": "Pagato con il credito",
        "credited": "Accreditato",
        "paid": "Pagato",
        "amount_due": "Importo dovuto",
        "tax_id": "Partita IVA",
        "page": "Pagina",
        "carried": "Da riportare",
        "brought": "Riporto",
        "further": "Altre righe: {count} (elencate nel conto)",
        "payment": "Pagamento",
        "transfer": "Bonifico bancario a {name}",
        "reference": "Causale",
        "reason": "Motivo",
        "open_headline": "Da pagare entro il {due}",
        "paid_headline": "Interamente pagata",
        "zero_headline": "Nulla da pagare",
        "void_headline": "Annullata: nulla è dovuto",
        "note_headline": "Accredito della fattura {invoice} del {day}",
        "late_usage": "consumo di un periodo precedente",
        "late_fee": "canone di un periodo precedente",
        "credit_usage": "accredito per consumo rettificato",
        "credit_fee": "accredito per il tempo non goduto",
    },
}
# Why no tax is charged: by treatment, and for a reverse charge by whether it crosses a border.
_SENTENCES: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {
        "reverse_charge": "Reverse charge: the recipient accounts for the VAT"
        " (Article 196 of Directive 2006/112/EC).",
        "reverse_charge_at_home": "Reverse charge: the recipient accounts for the VAT.",
        "export": "Not subject to VAT: the place of supply is outside the European Union"
        " (Articles 44 and 59 of Directive 2006/112/EC).",
        "export_elsewhere": "Not taxed: supplied to a customer abroad.",
        "exempt": "Exempt from tax.",
        "zero": "Taxed at zero.",
        "none": "Not subject to tax.",
    },
    "it": {
        "reverse_charge": "Inversione contabile: l'imposta è dovuta dal committente"
        " (art. 196 della direttiva 2006/112/CE).",
        "reverse_charge_at_home": "Inversione contabile: l'imposta è dovuta dal committente.",
        "export": "Operazione non soggetta a IVA: prestazione resa fuori dall'Unione europea"
        " (artt. da 7 a 7-septies del DPR 633/1972).",
        "export_elsewhere": "Operazione non imponibile: prestazione resa all'estero.",
        "exempt": "Operazione esente da imposta.",
        "zero": "Operazione con aliquota zero.",
        "none": "Operazione non soggetta a imposta.",
    },
}
# The steps of rating speak English; these are all the phrases that they are made of.
_STEPS_IT: Final = {
    "Flat fee": "Canone fisso",
    "Fixed fee": "Quota fissa",
    "flat fee": "quota fissa",
    "Included": "Compreso nel piano",
    "Usage": "Consumo",
    "Seats": "Postazioni",
    "Packages of": "Pacchetti da",
    "Minimum": "Minimo",
    "Tier": "Scaglione",
    "up to the maximum": "fino al massimo",
    "up to": "fino a",
    "above": "oltre",
    "of the period": "del periodo",
}
_STEP_PHRASE: Final = re.compile("|".join(map(re.escape, _STEPS_IT)))
_LOCALES: Final = {"en": Locale("en"), "it": Locale("it")}
_LETTERS: Final = re.compile(r"(?<=[A-Z]{3})(?=\d)", re.ASCII)
_LONG_WORD: Final = re.compile(r"\S{31,}")
_AFTER_SIGN: Final = re.compile(r"(?<=[@./_-])")
_TICK: Final = timedelta(microseconds=1)


def language_of(locale: str) -> Language:
    """Return the language of a document for a reader: theirs where it is spoken here."""
    return "it" if locale.lower().startswith("it") else "en"


def tax_name(language: Language, seller_country: str) -> str:
    """Return what the tax is called: value added tax in Europe, and just tax elsewhere."""
    european = seller_country in EUROPEAN_UNION or seller_country in {"GB", "CH", "NO"}
    return WORDS[language]["tax" if european else "tax_elsewhere"]


def sentence(
    treatment: Treatment,
    reason: str | None,
    language: Language,
    *,
    seller_country: str,
    buyer_country: str | None,
) -> str:
    """Return why a group of lines bears no tax; empty for one that does.

    A reason that somebody wrote stands after the sentence that the law asks for.
    """
    if treatment == Treatment.STANDARD:
        return ""
    key = str(treatment)
    if treatment == Treatment.REVERSE_CHARGE and buyer_country == seller_country:
        key = "reverse_charge_at_home"
    if treatment == Treatment.EXPORT and seller_country not in EUROPEAN_UNION:
        key = "export_elsewhere"
    said = _SENTENCES[language][key]
    return f"{said} {own_reason(reason)}".strip()


def own_reason(reason: str | None) -> str:
    """Return the reason that somebody wrote; empty for the one that tax rows have anyway."""
    return reason if reason and reason not in REASONS.values() else ""


def line_name(line: InvoiceLine, language: Language) -> str:
    """Return what a line is for; one that amends an earlier period says so."""
    if not is_amendment(line.reason):
        return line.description
    kind = "fee" if line.kind == "fixed" else "usage"
    words = WORDS[language][f"{'late' if line.amount >= 0 else 'credit'}_{kind}"]
    return f"{line.description.removesuffix(f': {line.reason}')}: {words}"


def is_amendment(reason: str) -> bool:
    """Say whether a line changes what an earlier period came to."""
    return reason.startswith(("late ", "credit: "))


def step_words(text: str, language: Language) -> str:
    """Return a step of the arithmetic in the reader's language."""
    if language == "en":
        return text
    return _STEP_PHRASE.sub(lambda found: _STEPS_IT[found[0]], text)


def country_name(code: str, language: Language) -> str:
    """Return a country by its name."""
    found: str = _LOCALES[language].territories.get(code, code)
    return found


def money(amount: Money, language: Language) -> str:
    """Return an amount with its currency, as the reader writes it."""
    major = Decimal(amount.text())
    text = _spaced(format_currency(major, amount.currency.upper(), locale=_LOCALES[language]))
    return f"\u2212{text.removeprefix('-')}" if text.startswith("-") else text


def price(value: Decimal, currency: str, language: Language) -> str:
    """Return a price with all of its decimals."""
    locale = _LOCALES[language]
    text = format_currency(value, currency.upper(), locale=locale, decimal_quantization=False)
    return _spaced(text)


def _spaced(text: str) -> str:
    """Return an amount whose currency is letters with a space before the digits, as CLDR asks."""
    return _LETTERS.sub("\u00a0", text)


def number(value: Decimal, language: Language) -> str:
    """Return a number with all of its decimals."""
    return format_decimal(value, locale=_LOCALES[language], decimal_quantization=False)


def exchange_rate(by: Exchange, currency: str, language: Language) -> str:
    """Return what was converted at: `1 EUR = 1.1172 USD (ECB, October 30, 2026)`."""
    rates = {currency: by.foreign_rate, by.currency: by.home_rate}
    sides = ["1 EUR"]
    sides += [
        f"{number(rate.normalize() + 0, language)} {one.upper()}"
        for one, rate in rates.items()
        if one != "eur"
    ]
    words = WORDS[language]["rate_of"]
    return words.format(rates=" = ".join(sides), source=by.source, day=day(by.day, language))


def percent(rate: Decimal, language: Language) -> str:
    """Return a rate in percent, without the zeros that a column adds."""
    return f"{number(rate.normalize() + 0, language)}\u00a0%" if rate else "0\u00a0%"


def day(value: date, language: Language) -> str:
    """Return a day in full."""
    return format_date(value, format="long", locale=_LOCALES[language])


def days_of(period: Period, time_zone: str) -> tuple[date, date]:
    """Return the first and the last day of a half-open period."""
    where = zone(time_zone)
    return period.start.astimezone(where).date(), (period.end - _TICK).astimezone(where).date()


def days(period: Period, time_zone: str, language: Language) -> str:
    """Return the first and the last day of a half-open period, as a reader counts days."""
    first, last = days_of(period, time_zone)
    if first >= last:
        return format_date(first, format="medium", locale=_LOCALES[language])
    # Babel pads the dash with thin spaces; plain ones keep the text easy to search and copy
    between = format_interval(first, last, skeleton="yMMMd", locale=_LOCALES[language])
    return between.replace("\u2009", " ")


def clean(text: str) -> str:
    """Return text that a page can hold: no controls, no direction overrides, breakable words."""
    single = plain(text)
    return _LONG_WORD.sub(lambda found: _breakable(found[0]), single)


def plain(text: str) -> str:
    """Return text on one line, without what a page and an XML file cannot hold."""
    kept = (
        " " if letter.isspace() else letter
        for letter in unicodedata.normalize("NFC", text)
        if letter.isspace() or unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Co", "Cn"}
    )
    return " ".join("".join(kept).split())


def _breakable(word: str, size: int = 10) -> str:
    """Return the word with places where a line may end: after a sign, else every few letters.

    A soft hyphen would look better, and make every other hyphen of the file one when it is copied.
    """
    parts = _AFTER_SIGN.split(word)
    chunks = (part[at : at + size] for part in parts for at in range(0, len(part), size))
    return "\u200b".join(chunks)
