"""The documents that the bench renders are new each time, and real."""

from convergio.billing import einvoices, factur_x, fatturapa
from convergio.simulation import bench_documents
from tests.fakes import schemas


def test_no_two_documents_of_the_bench_are_alike() -> None:
    views = [bench_documents.view(number) for number in range(50)]
    seller = bench_documents.SELLER
    assert len({factur_x.write(einvoices.of(one, seller)) for one in views}) == 50
    assert {len(one.taxes) for one in views} == {2}


def test_the_documents_of_the_bench_are_e_invoices_that_the_judges_take() -> None:
    seller = bench_documents.SELLER
    for number in (0, 1, 299):
        told = einvoices.of(bench_documents.view(number), seller)
        assert schemas.en_16931(factur_x.write(told)) == []
        assert schemas.fatturapa(fatturapa.write(told)) == []


def test_the_bench_says_how_many_a_second() -> None:
    speed = bench_documents.speed(3)
    assert 0 < speed.pdf < speed.factur_x
    assert speed.pdf_without_xml > 0
