"""Grow an XML tree: the three lines that both formats of e-invoices share.

Tags carry their prefixes as they are. Text is cleaned of what XML cannot hold; the library escapes
the rest. Nothing here reads XML.
"""

from xml.etree.ElementTree import Element, SubElement, tostring

from convergio.billing import wording


def add(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    """Return a new last child of an element."""
    child = SubElement(parent, tag, attributes)
    if text is not None:
        child.text = wording.plain(text)
    return child


def add_some(parent: Element, tag: str, text: str | None) -> None:
    """Give an element another child where there is text for it."""
    if text:
        add(parent, tag, text)


def written(root: Element) -> bytes:
    """Return a tree as bytes of a file."""
    found: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return found
