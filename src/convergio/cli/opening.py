"""Open the product for one command: settings from the environment, then everything else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from convergio.infra.settings import Settings, load_settings
from convergio.wiring import App
from convergio.wiring import opened as _opened


def settings() -> Settings:
    """Return this environment's settings. Raises: Invalid naming the variable."""
    return load_settings(os.environ)


@contextmanager
def opened(*, example: bool = True) -> Iterator[App]:
    """Open the product as the environment says; `example` fills an empty catalog."""
    with _opened(settings(), example=example) as app:
        yield app
