"""Open the product for one command: settings from the environment, then everything else.

A command that looks opens a transaction of its own; one that changes something hands its work to
`done`, which begins it again when it met another transaction.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from convergio.infra.db import Tx
from convergio.infra.settings import Settings, load_settings
from convergio.wiring import App
from convergio.wiring import opened as _opened

Result = TypeVar("Result")


def settings() -> Settings:
    """Return this environment's settings. Raises: Invalid naming the variable."""
    return load_settings(os.environ)


@contextmanager
def opened(*, example: bool = True) -> Iterator[App]:
    """Open the product as the environment says; `example` fills an empty catalog."""
    with _opened(settings(), example=example) as app:
        yield app


def done(work: Callable[[App, Tx], Result], *, example: bool = True) -> Result:
    """Return what `work` does in one transaction of the open product; see `Database.insist`."""
    with opened(example=example) as product:
        return product.database.insist(partial(work, product))
