"""What the product stands on: pinned, licensed so that anyone may host it, and chosen by name."""

import importlib.metadata
import re
import tomllib

import pytest
from uvicorn.config import HTTP_PROTOCOLS, LOOP_FACTORIES
from uvicorn.importer import import_from_string

from tests.arch import house

LOCK = house.ROOT / "requirements" / "runtime.lock"
PINNED = re.compile(r"^([a-z0-9._-]+)(?:\[[^\]]+\])?==(\S+)", re.MULTILINE)

# Words of licences under which an Apache-2.0 product may be hosted and changed by anyone.
PERMISSIVE = re.compile(r"MIT|BSD|Apache|ISC|PSF|Mozilla Public License|MPL-2\.0|Unlicense")
# The driver is used as a library, unchanged and replaceable: what the Lesser GPL asks for.
LESSER = {"psycopg", "psycopg-binary", "psycopg-pool", "python-stdnum"}


def pinned() -> dict[str, str]:
    return dict(PINNED.findall(LOCK.read_text(encoding="utf-8")))


def licence(name: str) -> str:
    about = importlib.metadata.metadata(name)
    classifiers = [text for text in about.get_all("Classifier") or [] if "License" in text]
    return " ".join([about["License-Expression"] or "", about["License"] or "", *classifiers])


def direct() -> set[str]:
    project = tomllib.loads((house.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["embedded"]]
    return {re.split(r"[\[<>=~! ;]", text)[0].lower() for text in wanted}


def test_every_direct_dependency_is_locked() -> None:
    assert direct() <= set(pinned())


def test_every_direct_dependency_has_a_lowest_and_most_a_highest_version() -> None:
    text = (house.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = tomllib.loads(text)["project"]["dependencies"]
    assert [one for one in wanted if ">=" not in one] == []
    # tzdata's version is a date: a newer one is the same thing with newer facts
    assert [one for one in wanted if "<" not in one and not one.startswith("tzdata")] == []


def test_what_is_installed_is_what_is_locked() -> None:
    different = []
    for name, version in pinned().items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system than this one
        if found != version:
            different.append(f"{name} {found}, locked {version}")
    assert not different, "run `make dev`"


def test_every_dependency_may_be_hosted_by_anyone() -> None:
    installed = {
        d.metadata["Name"].lower().replace("_", "-") for d in importlib.metadata.distributions()
    }
    strange = {
        name: licence(name)
        for name in sorted(set(pinned()) & installed)
        if not PERMISSIVE.search(licence(name)) and name not in LESSER
    }
    assert not strange
    assert all("LGPL" in licence(name) for name in LESSER)


@pytest.mark.parametrize(
    ("table", "name"), [(LOOP_FACTORIES, "uvloop"), (HTTP_PROTOCOLS, "httptools")]
)
def test_uvicorn_finds_the_loop_and_the_parser_that_we_chose(
    table: dict[str, str], name: str
) -> None:
    assert import_from_string(table[name]) is not None
