"""The oracle shares nothing with what it checks: kernel, itself and the standard library."""

import sys

from tests.arch import house

ORACLE = sorted((house.SERVER / "simulation").glob("oracle*.py"))


def test_there_is_an_oracle() -> None:
    assert len(ORACLE) >= 4


def test_the_oracle_imports_the_kernel_and_its_own_modules_alone() -> None:
    allowed = ("convergio.kernel.", "convergio.simulation.oracle")
    found = [
        f"{house.shown(path)}:{line}: {name}"
        for path in ORACLE
        for line, name in house.imports(path)
        if not name.startswith(allowed) and name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not found, "\n".join(found)


def test_the_oracle_uses_no_arithmetic_of_the_kernel_that_it_is_to_check() -> None:
    found = [
        f"{house.shown(path)}:{line}: {name}"
        for path in ORACLE
        for line, name in house.imports(path)
        if name.startswith("convergio.kernel.") and name != "convergio.kernel.money.exponent"
    ]
    assert not found, "\n".join(found)
