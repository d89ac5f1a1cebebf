"""Documents are part of the house: what they name exists, and what must be said is said."""

import re
from pathlib import Path

import pytest

from convergio.cli import main as cli
from convergio.infra.settings import Seller, Settings
from tests.arch import house

PAGES = [
    *sorted(house.ROOT.glob("*.md")),
    *sorted((house.ROOT / "docs").rglob("*.md")),
]
DECISIONS = sorted((house.ROOT / "docs" / "adr").glob("[0-9]*.md"))
ARCHITECTURE_LINES_MAX = 200
DECISION_LINES_MAX = 60

FENCE = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
PATH = re.compile(
    r"`((?:src|tests|docs|requirements)/[\w./-]*\w|[A-Z][A-Z]+\.md|\.ci/run|Makefile)`"
)


def identity(path: Path) -> str:
    return house.shown(path)


def text(name: str) -> str:
    return (house.ROOT / name).read_text(encoding="utf-8")


def shell_lines(page: Path) -> list[str]:
    """Return the lines of the page's shell examples, without prompts and comments."""
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").split(" #")[0].strip() for line in lines]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_every_example_names_a_command_that_exists(page: Path) -> None:
    lines = shell_lines(page)
    chores = {name for line in lines for name in re.findall(r"\bmake ([a-z]+)", line)}
    commands = {
        name for line in lines for name in re.findall(r"(?<![\w-])convergio ([a-z]+)", line)
    }
    assert chores <= targets()
    assert commands <= set(cli.COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_every_path_and_link_leads_somewhere(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    lost = [link for link in LINK.findall(content) if not (page.parent / link).exists()]
    lost += [path for path in PATH.findall(content) if not (house.ROOT / path).exists()]
    assert not lost


def test_make_help_lists_the_chores_that_a_newcomer_needs() -> None:
    helped = set(re.findall(r"^([a-z]+):.*## \S", text("Makefile"), re.MULTILINE))
    assert {"demo", "dev", "check", "test", "bench", "fault", "fmt", "lock", "clean"} <= helped


def test_the_readme_names_every_setting() -> None:
    fields = [name for name in Settings.__struct_fields__ if name not in {"seller", "database_url"}]
    names = {f"CONVERGIO_{name.upper()}" for name in fields} | {"DATABASE_URL", "CONVERGIO_CONFIG"}
    names |= {f"CONVERGIO_SELLER_{name.upper()}" for name in Seller.__struct_fields__}
    assert set(re.findall(r"`((?:CONVERGIO|DATABASE)_[A-Z_]+)`", text("README.md"))) == names


def test_the_readme_names_every_command() -> None:
    named = set(re.findall(r"convergio ([a-z]+)", text("README.md")))
    assert set(cli.COMMANDS) <= named


def test_the_map_of_the_house_fits_in_one_sitting() -> None:
    assert len(text("ARCHITECTURE.md").splitlines()) <= ARCHITECTURE_LINES_MAX


def test_every_step_of_the_path_of_an_event_is_where_the_map_says() -> None:
    steps = re.findall(
        r"^\| \d+ \| `(\S+)` \| `(?:\w+\.)?(\w+)` \|", text("ARCHITECTURE.md"), re.MULTILINE
    )
    assert len(steps) > 10
    lost = [
        f"{path}: {name}"
        for path, name in steps
        if not re.search(rf"^\s*(async )?(def|class) {name}\b", text(path), re.MULTILINE)
    ]
    assert not lost


def test_the_map_shows_every_room() -> None:
    rooms = {p.name for p in house.SERVER.iterdir() if (p / "__init__.py").exists()}
    drawn = set(re.findall(r"`(\w+)/`", text("ARCHITECTURE.md")))
    assert rooms <= drawn


@pytest.mark.parametrize("page", DECISIONS, ids=identity)
def test_a_decision_fits_a_page_and_names_what_enforces_it(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    assert len(content.splitlines()) <= DECISION_LINES_MAX
    enforced = re.search(
        r"^\*\*Enforced by:\*\*(.*?)(?:\n\n|\Z)", content, re.MULTILINE | re.DOTALL
    )
    assert enforced, "an ADR ends with a line that begins with **Enforced by:**"
    paths = re.findall(r"`([^`\s]+)`", enforced[1])
    assert paths
    assert all((house.ROOT / path.split("::")[0]).exists() for path in paths), paths


def test_decisions_are_numbered_in_one_line() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))
