"""The one place that imports by name: a command's module, or an edge that a command starts."""

import importlib
from types import ModuleType


def load(name: str) -> ModuleType:
    """Return the module of the house with this name, such as `cli.bill` or `worker`."""
    return importlib.import_module(f"convergio.{name}")
