"""Rows as CSV (RFC 4180) where a client asks for it, and safe to open in a spreadsheet.

A cell of text that a spreadsheet would take for a formula gets an apostrophe in front; numbers
stay numbers, also negative ones. The file's name is made here, never from what was sent.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Annotated, Any, Final, Literal

from litestar import Response
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import QueryParameter

from convergio.api.requests import Anyone
from convergio.kernel.text import safe_cell

CSV: Final = "text/csv"
JSON: Final = "application/json"
Format = Annotated[Literal["json", "csv"] | None, QueryParameter(name="format")]
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)


@dataclass
class CsvToo(Operation):
    """Say in the OpenAPI document that the answer also comes as CSV."""

    def __post_init__(self) -> None:
        """Add the second media type to the answer."""
        done = (self.responses or {}).get("200")
        if isinstance(done, OpenAPIResponse) and done.content is not None:
            done.content[CSV] = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))


def wants_csv(request: Anyone, form: str | None) -> bool:
    """Say whether the client asked for CSV: by `format`, or else by its Accept header."""
    return form == "csv" or (form is None and request.accept.best_match([JSON, CSV]) == CSV)


def as_csv(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, name: str
) -> Response[Any]:
    """Return rows as a CSV file with these columns."""
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return Response(
        text.getvalue().encode(),
        media_type=f"{CSV}; header=present",
        headers={"content-disposition": f'attachment; filename="{name}.csv"'},
    )


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if _NUMBER.fullmatch(text) else safe_cell(text)
