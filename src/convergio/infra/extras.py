"""Libraries that only some installations have: loaded by name, and named when they are missing."""

import importlib
from types import ModuleType

from convergio.kernel.errors import Invalid


def load(module: str, *, extra: str, field: str, otherwise: str) -> ModuleType:
    """Return an optional library's module.

    Raises: Invalid that names the extra to install, and what works without it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        detail = f"this needs an extra: pip install 'convergio-billing[{extra}]'; or {otherwise}"
        raise Invalid(detail, code="missing_extra", field=field) from None
