"""Where things stand in this checkout, for the tests that hold the house to its own rules."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
SERVER = SOURCE / "convergio"
CLIENT = SOURCE / "convergio_client"
TESTS = ROOT / "tests"
MIGRATIONS = SERVER / "infra" / "migrations" / "versions"

# Rooms that hold facts about the business. The others (kernel, rating, infra, crypto, the edges,
# the simulation) are free in how they cut their files.
DOMAINS = frozenset(
    "alerts audit billing catalog costs customers discounts entitlements identity ledger metering"
    " notifications payments privacy subscriptions taxes webhooks".split()
)


@cache
def tree(path: Path) -> ast.Module:
    """Return the parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def modules(*folders: Path) -> list[Path]:
    """Return every Python file below the folders, in order."""
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def shown(path: Path) -> str:
    """Return the path as a reader of this checkout writes it."""
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that the module imports, wherever it stands.

    `from a.b import c` yields `a.b.c`: whether `c` is a module is for the reader to tell.
    """
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def tracked() -> list[Path]:
    """Return the files that the repository has or would take (nothing that it ignores)."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # an archive without its history
        paths = [p for p in ROOT.rglob("*") if not _generated(p.relative_to(ROOT))]
    return sorted(path for path in paths if path.is_file())


def _generated(path: Path) -> bool:
    hidden = path.parts[0].startswith(".") and path.parts[0] not in {".ci", ".gitignore"}
    return hidden or "__pycache__" in path.parts or any(p.endswith(".egg-info") for p in path.parts)
