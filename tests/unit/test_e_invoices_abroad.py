"""E-invoices that cross a border: another currency, another country's tax, the way it is paid."""

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from convergio.billing import einvoices, factur_x, fatturapa
from convergio.billing.model import Buyer, CreditNoteView, InvoiceView
from convergio.infra.settings import Seller
from convergio.kernel.errors import Conflict
from convergio.rating.taxing import Treatment
from convergio.taxes import reference
from convergio.taxes.model import Exchange
from tests.fakes import schemas
from tests.fakes.documents import (
    AMERICAN,
    GERMAN,
    ITALIAN,
    RATE,
    SELLER,
    credit_note,
    in_dollars,
    invoice,
    line,
    taxed_in,
)
from tests.fakes.schemas import texts

ZERO = Decimal(0)
FRENCH = msgspec.structs.replace(
    GERMAN, name="Marie Curie", country="FR", tax_id=None, city="Paris", postal_code="75005"
)
TWENTY = (Treatment.STANDARD, Decimal(20))
SEVEN = (Treatment.STANDARD, Decimal("5.5"))
DOLLARS = in_dollars(
    invoice(line(10_000), line(3_333, 1_000), line(1_664, quantity="1664", unit="0.01"))
)
EXPORTED = in_dollars(invoice(line(10_001, tax=(Treatment.EXPORT, ZERO)), buyer=AMERICAN))


def told(view: InvoiceView | CreditNoteView, seller: Seller = SELLER) -> einvoices.EInvoice:
    if isinstance(view, CreditNoteView):
        return einvoices.of_note(view, seller)
    return einvoices.of(view, seller)


def noted(view: InvoiceView, *parts: tuple[int, int]) -> CreditNoteView:
    """Return a credit note of an invoice, its tax stated as that one's was."""
    note = credit_note(view, *parts)
    by = view.kept.exchange
    rows = note.taxes if by is None else reference.stated(note.taxes, "usd", by)
    return replace(note, taxes=rows, kept=view.kept)


def test_a_foreign_invoice_states_its_tax_in_the_seller_s_currency_too() -> None:
    xml = factur_x.write(told(DOLLARS))
    assert schemas.en_16931(xml) == []
    assert texts(xml, "TaxCurrencyCode") == ["EUR"]
    assert texts(xml, "InvoiceCurrencyCode") == ["USD"]
    # net 100.00 + 23.33 + 16.64, tax 30.79 dollars; 30.79 / 1.0411 = 29.5745... euros
    assert texts(xml, "TaxTotalAmount") == ["30.79", "29.57"]
    assert b'<ram:TaxTotalAmount currencyID="USD">30.79</ram:TaxTotalAmount>' in xml
    assert b'<ram:TaxTotalAmount currencyID="EUR">29.57</ram:TaxTotalAmount>' in xml
    assert texts(xml, "Content") == ["1 EUR = 1,0411 USD (ECB, 28 febbraio 2025)"]
    assert texts(xml, "GrandTotalAmount") == ["170.76"]


def test_a_foreign_credit_note_states_it_at_the_rate_of_its_invoice() -> None:
    xml = factur_x.write(told(noted(DOLLARS, (1, 10_000))))
    assert schemas.en_16931(xml) == []
    assert texts(xml, "TaxTotalAmount") == ["22.00", "21.13"]


def test_the_judge_misses_the_amount_where_only_the_currency_is_said() -> None:
    xml = factur_x.write(told(DOLLARS))
    second = b'<ram:TaxTotalAmount currencyID="EUR">29.57</ram:TaxTotalAmount>'
    assert any("BR-53" in one for one in schemas.en_16931(xml.replace(second, b"")))


def test_an_italian_file_of_a_foreign_invoice_is_in_euros_and_says_what_it_was() -> None:
    xml = fatturapa.write(told(DOLLARS))
    assert schemas.fatturapa(xml) == []
    assert texts(xml, "Divisa") == ["EUR"]
    assert texts(xml, "Imposta") == ["29.57"]
    # 139.97 / 1.0411 = 134.4443...
    assert texts(xml, "ImponibileImporto") == ["134.44"]
    assert texts(xml, "ImportoTotaleDocumento") == ["164.01"]
    assert sum(map(Decimal, texts(xml, "PrezzoTotale"))) == Decimal("134.44")
    assert texts(xml, "RiferimentoTesto") == ["USD", "USD", "USD"]
    assert texts(xml, "RiferimentoNumero") == ["100.00", "23.33", "16.64"]
    assert texts(xml, "Causale") == [
        "Importi convertiti: 1 EUR = 1,0411 USD (ECB, 28 febbraio 2025)"
    ]
    note = fatturapa.write(told(noted(DOLLARS, (1, 10_000))))
    assert schemas.fatturapa(note) == []
    assert (texts(note, "TipoDocumento"), texts(note, "Imposta")) == (["TD04"], ["21.13"])


def test_what_is_paid_is_paid_in_euros_too_and_no_more_than_all_is_due() -> None:
    for net in range(9_990, 10_030):
        view = in_dollars(invoice(line(net), line(333, tax=SEVEN)))
        total = view.invoice.total
        paid, partly = (
            replace(view, invoice=replace(view.invoice, from_balance=part)) for part in (total, 1)
        )
        assert texts(fatturapa.write(told(paid)), "DatiPagamento") == []
        for one in (view, partly):
            xml = fatturapa.write(told(one))
            (due,), (whole,) = texts(xml, "ImportoPagamento"), texts(xml, "ImportoTotaleDocumento")
            assert 0 <= Decimal(whole) - Decimal(due) <= (Decimal("0.02") if one is partly else 0)


def test_an_export_in_dollars_is_judged_in_both_formats() -> None:
    assert schemas.en_16931(factur_x.write(told(EXPORTED))) == []
    xml = fatturapa.write(told(EXPORTED))
    assert schemas.fatturapa(xml) == []
    assert texts(xml, "ImportoTotaleDocumento") == ["96.06"]
    assert (texts(xml, "CodiceDestinatario"), texts(xml, "CAP")) == (
        ["XXXXXXX"], ["00144", "00000"],
    )  # fmt: skip
    assert texts(xml, "Nazione") == ["IT", "US"]


def test_an_invoice_without_a_kept_rate_is_refused_in_the_italian_format_only() -> None:
    view = replace(DOLLARS, kept=DOLLARS.kept._replace(exchange=None))
    with pytest.raises(Conflict, match="euros"):
        fatturapa.write(told(view))
    assert texts(factur_x.write(told(view)), "TaxCurrencyCode") == []


def test_two_foreign_currencies_meet_in_the_euro() -> None:
    by = Exchange("pln", RATE.day, Decimal("1.0411"), Decimal("4.1588"), "ECB")
    xml = factur_x.write(told(in_dollars(invoice(line(10_000)), by)))
    assert schemas.en_16931(xml) == []
    assert texts(xml, "TaxTotalAmount") == ["22.00", "87.88"]
    assert texts(xml, "Content") == ["1 EUR = 1,0411 USD = 4,1588 PLN (ECB, 28 febbraio 2025)"]


def test_tax_of_another_member_state_is_a_line_that_italy_does_not_tax() -> None:
    view = taxed_in(invoice(line(10_000, tax=TWENTY), line(1_000, tax=SEVEN), buyer=FRENCH), "FR")
    xml = fatturapa.write(told(view))
    assert schemas.fatturapa(xml) == []
    assert set(texts(xml, "AliquotaIVA")) == {"0.00"}
    assert set(texts(xml, "Natura")) == {"N7"}
    assert texts(xml, "PrezzoTotale") == ["100.00", "10.00", "20.00", "0.55"]
    assert texts(xml, "Descrizione")[2] == "IVA Francia 20 % (regime OSS)"
    assert texts(xml, "ImponibileImporto") == ["130.55"]
    assert texts(xml, "Imposta") == ["0.00"]
    assert texts(xml, "ImportoTotaleDocumento") == ["130.55"]
    assert texts(xml, "BolloVirtuale") == []


def test_tax_of_another_member_state_in_another_currency_adds_up_in_euros() -> None:
    view = in_dollars(taxed_in(invoice(line(10_000, tax=TWENTY), buyer=FRENCH), "FR"))
    assert schemas.en_16931(factur_x.write(told(view))) == []
    for one in (view, noted(view, (1, 10_000))):
        xml = fatturapa.write(told(one))
        assert schemas.fatturapa(xml) == []
        # 100.00 and 20.00 dollars at 1.0411
        assert texts(xml, "PrezzoTotale") == ["96.05", "19.21"]
        assert texts(xml, "ImponibileImporto") == texts(xml, "ImportoTotaleDocumento") == ["115.26"]


@pytest.mark.parametrize(
    ("country", "typed", "code"),
    [
        ("DE", "DE136695976", "136695976"),
        ("GR", "EL123456789", "123456789"),
        ("GR", "GR123456789", "123456789"),
        ("CH", "CHE-123.456.789", "CHE123456789"),
        ("US", "12-3456789", "123456789"),
        ("US", None, "OO99999999999"),
        ("DE", None, "0000000"),
    ],
)
def test_a_foreign_buyer_has_the_number_of_their_country(
    country: str, typed: str | None, code: str
) -> None:
    buyer = msgspec.structs.replace(GERMAN, country=country, tax_id=typed)
    view = invoice(line(10_000, tax=(Treatment.EXPORT, ZERO)), buyer=buyer)
    xml = fatturapa.write(told(view))
    assert schemas.fatturapa(xml) == []
    assert texts(xml, "IdPaese")[-1] == country
    assert texts(xml, "IdCodice")[-1] == code


def test_italian_tax_of_a_sale_abroad_is_italian_tax() -> None:
    view = taxed_in(invoice(line(10_000), buyer=FRENCH), "IT")
    xml = fatturapa.write(told(view))
    assert schemas.fatturapa(xml) == []
    assert (texts(xml, "Imposta"), texts(xml, "Natura")) == (["22.00"], [])


@pytest.mark.parametrize(
    ("view", "what"),
    [
        (invoice(line(699), buyer=FRENCH), "which country"),
        (taxed_in(invoice(line(699, tax=TWENTY), buyer=AMERICAN), "GB"), "European Union"),
    ],
)
def test_a_tax_that_has_no_place_in_the_italian_format_is_refused(
    view: InvoiceView, what: str
) -> None:
    with pytest.raises(Conflict, match=what):
        fatturapa.write(told(view))


@pytest.mark.parametrize(
    ("treatment", "buyer", "reason", "law"),
    [
        (Treatment.REVERSE_CHARGE, GERMAN, None, "Inversione contabile (art. 7-ter DPR 633/1972)"),
        (Treatment.REVERSE_CHARGE, ITALIAN, None, "Inversione contabile (art. 17 DPR 633/1972)"),
        (Treatment.EXPORT, AMERICAN, None, "Operazione non soggetta (artt. da 7 a 7-septies"),
        (Treatment.EXEMPT, ITALIAN, None, "Operazione esente"),
        (Treatment.EXEMPT, ITALIAN, "Art. 10 DPR 633/1972", "Art. 10 DPR 633/1972"),
    ],
)
def test_an_italian_file_says_why_in_italian_whoever_reads_the_page(
    treatment: Treatment, buyer: Buyer, reason: str | None, law: str
) -> None:
    view = invoice(line(10_000, tax=(treatment, ZERO)), buyer=buyer, reason=reason)
    xml = fatturapa.write(told(view))
    assert schemas.fatturapa(xml) == []
    (said,) = texts(xml, "RiferimentoNormativo")
    assert said.startswith(law)
    assert len(said) < 100


def test_the_stamp_says_how_much_and_can_be_left_out() -> None:
    view = invoice(line(7_748, tax=(Treatment.EXEMPT, ZERO)))
    assert texts(fatturapa.write(told(view)), "ImportoBollo") == ["2.00"]
    none = msgspec.structs.replace(SELLER, stamp_duty="0.00")
    assert texts(fatturapa.write(told(view, none)), "DatiBollo") == []


def test_a_line_that_gives_back_nothing_has_no_price_below_zero() -> None:
    xml = fatturapa.write(told(invoice(line(10_000), line(-500, -500))))
    assert schemas.fatturapa(xml) == []
    assert texts(xml, "PrezzoUnitario") == ["100.00", "0.00"]


@pytest.mark.parametrize(
    ("by_transfer", "iban", "currency", "code", "way"),
    [
        (True, True, "eur", ["58"], "MP05"),
        (True, True, "usd", ["30"], "MP05"),
        (True, False, "eur", [], "MP05"),
        (False, True, "eur", ["48"], "MP08"),
        (False, False, "eur", ["48"], "MP08"),
    ],
)
def test_an_account_is_named_only_to_whoever_pays_by_transfer(
    by_transfer: bool, iban: bool, currency: str, code: list[str], way: str
) -> None:
    buyer = msgspec.structs.replace(ITALIAN, by_transfer=by_transfer)
    seller = SELLER if iban else msgspec.structs.replace(SELLER, iban="")
    view = invoice(line(10_000), buyer=buyer)
    view = in_dollars(view) if currency == "usd" else view
    xml = factur_x.write(told(view, seller))
    assert schemas.en_16931(xml) == []
    means = xml.partition(b"SpecifiedTradeSettlementPaymentMeans")[2][:60]
    assert [one for one in code if one.encode() in means] == code
    assert bool(means) is bool(code)
    assert texts(xml, "IBANID") == ([SELLER.iban] if by_transfer and iban else [])
    italian = fatturapa.write(told(view, seller))
    assert schemas.fatturapa(italian) == []
    assert texts(italian, "ModalitaPagamento") == [way]
    assert texts(italian, "IBAN") == ([SELLER.iban] if by_transfer and iban else [])


@some.composite
def foreign(draw: some.DrawFn) -> InvoiceView:
    """Draw an invoice in dollars at any rate."""
    taxes = [(Treatment.STANDARD, Decimal(22)), (Treatment.STANDARD, Decimal(4))]
    taxes.append((Treatment.EXEMPT, ZERO))
    lines = []
    for _ in range(draw(some.integers(1, 8))):
        amount = draw(some.integers(1, 200_000))
        off = draw(some.integers(0, amount))
        lines.append(line(amount, off, draw(some.sampled_from(taxes))))
    rate = Decimal(draw(some.integers(5_000, 300_000))).scaleb(-4)
    return in_dollars(invoice(*lines), RATE._replace(foreign_rate=rate))


@settings(max_examples=30, deadline=None)
@given(view=foreign())
def test_any_foreign_invoice_is_taken_by_both_judges_and_its_euros_add_up(
    view: InvoiceView,
) -> None:
    assert schemas.en_16931(factur_x.write(told(view))) == []
    xml = fatturapa.write(told(view))
    assert schemas.fatturapa(xml) == []
    nets = [Decimal(one) for one in texts(xml, "ImponibileImporto")]
    taxes = [Decimal(one) for one in texts(xml, "Imposta")]
    rates = [Decimal(one) for one in texts(xml, "AliquotaIVA")][-len(nets) :]
    assert sum(nets) == sum(Decimal(one) for one in texts(xml, "PrezzoTotale"))
    assert Decimal(texts(xml, "ImportoTotaleDocumento")[0]) == sum(nets) + sum(taxes)
    told_tax = texts(factur_x.write(told(view)), "TaxTotalAmount")[1]
    assert Decimal(told_tax) == sum(taxes)
    for net, tax, rate in zip(nets, taxes, rates, strict=True):  # SdI takes a cent of difference
        exact = (net * rate / 100).quantize(Decimal("0.01"), rounding="ROUND_HALF_UP")
        assert abs(exact - tax) <= Decimal("0.01"), (net, tax, rate)
