"""Parse XML without document types and entities, so that a file can neither grow in memory nor name other files."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.parsers import expat


def parse_xml(path: Path) -> ElementTree.Element:
    """Return the root of an XML file.

    Raises:
        ValueError: If it is not XML, or declares a document type or an entity.
        OSError: If it cannot be read.
    """
    parser = ElementTree.XMLParser()
    # The parser in use is an expat parser; its handler for document types sees each of them before its entities.
    refuse = expat.ParserCreate()

    def found_doctype(*_: object) -> None:
        raise ValueError("it declares a document type (<!DOCTYPE>), which is not read")

    refuse.StartDoctypeDeclHandler = found_doctype
    data = path.read_bytes()
    try:
        refuse.Parse(data, True)
        parser.feed(data)
        return parser.close()
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise ValueError(f"its XML is broken: {error}") from None
    except (LookupError, UnicodeError) as error:
        raise ValueError(f"its encoding cannot be read: {error}") from None
