"""Say in a PDF's own metadata that it is a Factur-X invoice, which typst has no words for.

Follows Factur-X 1.0, section 6.2: four properties in a name space of their own, and, because PDF/A
allows no property that is not described, their description among the file's extension schemas.
The metadata is replaced in place and what lies behind it moves, so the file stays of one revision.
It takes the form in which typst writes a file; another form is a Fault, and a test would show it.
"""

import re
from typing import Final

from convergio.kernel.errors import Fault, require

NAMESPACE: Final = "urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#"
_VALUES: Final = {
    "DocumentFileName": ("factur-x.xml", "name of the embedded XML file"),
    "DocumentType": ("INVOICE", "what the embedded XML file is"),
    "Version": ("1.0", "version of the XML file's standard"),
    "ConformanceLevel": ("EN 16931", "profile of the XML file"),
}
_PROPERTIES: Final = "".join(
    f'<rdf:li rdf:parseType="Resource"><pdfaProperty:name>{name}</pdfaProperty:name>'
    "<pdfaProperty:valueType>Text</pdfaProperty:valueType>"
    "<pdfaProperty:category>external</pdfaProperty:category>"
    f"<pdfaProperty:description>{about}</pdfaProperty:description></rdf:li>"
    for name, (_, about) in _VALUES.items()
)
_SCHEMA: Final = (
    '<rdf:li rdf:parseType="Resource"><pdfaSchema:schema>Factur-X</pdfaSchema:schema>'
    f"<pdfaSchema:namespaceURI>{NAMESPACE}</pdfaSchema:namespaceURI>"
    "<pdfaSchema:prefix>fx</pdfaSchema:prefix>"
    f"<pdfaSchema:property><rdf:Seq>{_PROPERTIES}</rdf:Seq></pdfaSchema:property></rdf:li>"
).encode()
_FACTS: Final = (
    f'<rdf:Description rdf:about="" xmlns:fx="{NAMESPACE}">'
    + "".join(f"<fx:{name}>{value}</fx:{name}>" for name, (value, _) in _VALUES.items())
    + "</rdf:Description>"
).encode()
_METADATA: Final = re.compile(
    rb"<</Length (\d+)/Type/Metadata/Subtype/XML>>\nstream\n(.*?)\nendstream", re.DOTALL
)
_SCHEMAS_END: Final = b"</rdf:Bag></pdfaExtension:schemas>"
_END: Final = b"</rdf:RDF>"
_ENTRY: Final = re.compile(rb"(\d{10}) 00000 n")
_ANOTHER_FORM: Final = "typst writes a PDF of another form than the one that is known here"
_START: Final = re.compile(rb"startxref\n(\d+)\n%%EOF\s*\Z")


def marked(pdf: bytes) -> bytes:
    """Return the PDF with the four properties of Factur-X. Raises: Fault for another form."""
    start = _START.search(pdf[-64:])
    found = _METADATA.search(pdf, max(0, len(pdf) // 2))
    if start is None or found is None:
        raise Fault(_ANOTHER_FORM)
    old, table = found[2], int(start[1])
    fits = old.count(_SCHEMAS_END) == 1 and old.count(_END) == 1 and len(old) == int(found[1])
    require(fits and pdf[table : table + 4] == b"xref", _ANOTHER_FORM)
    new = old.replace(_SCHEMAS_END, _SCHEMA + _SCHEMAS_END).replace(_END, _FACTS + _END)
    head = b"<</Length %d/Type/Metadata/Subtype/XML>>\nstream\n%s\nendstream" % (len(new), new)
    shift = len(head) - len(found[0])

    def moved(entry: re.Match[bytes]) -> bytes:
        place = int(entry[1])
        return b"%010d 00000 n" % (place + shift if place > found.start() else place)

    places = _ENTRY.sub(moved, pdf[table:]).rpartition(b"startxref")[0]
    body = pdf[: found.start()] + head + pdf[found.end() : table]
    return body + places + b"startxref\n%d\n%%%%EOF" % (table + shift)
