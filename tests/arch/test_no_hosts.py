"""The tree names no package registry, no folder of one person's machine, and no secret."""

import re

from tests.arch import house

# Written as patterns, so that this file does not find itself.
BANNED = {
    "a package registry": re.compile(
        r"pypi\.org|pythonhosted\.org|registry\.npmjs\.org|registry\.yarnpkg\.com|deb\.debian\.org"
        r"|--(extra-)?index-url|--find-link[s]|/simple/\w"
    ),
    "a folder of one machine": re.compile(r"(?<![\w.])/(root|work|opt/pypi\S*|home/\w+|Users)/"),
    "a secret": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY|\bsk_live_\w{8}|\brk_live_\w{8}|\bpdl_live_\w{8}"
        r"|\bwhsec_[A-Za-z0-9+/]{24}|\bcvg_live_[A-Za-z0-9]{36}|\bAKIA[A-Z0-9]{16}"
        r"|\bgh[pousr]_[A-Za-z0-9]{36}"
    ),
}
BINARY = {".pdf", ".png", ".ttf", ".otf", ".gz", ".ico", ".woff2"}


def test_no_tracked_file_names_a_registry_a_machine_or_a_secret() -> None:
    found = [
        f"{house.shown(path)}:{number}: {what}"
        for path in house.tracked()
        if path.suffix not in BINARY
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for what, pattern in BANNED.items()
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_every_locked_package_has_its_hashes() -> None:
    bare = []
    for path in sorted((house.ROOT / "requirements").glob("*.lock")):
        for block in re.split(r"\n(?=\S)", path.read_text(encoding="utf-8")):
            pinned = re.match(r"[a-z0-9._-]+(\[\S+\])?==\S+", block)
            if not block.startswith("#") and not (pinned and "--hash=sha256:" in block):
                bare.append(f"{house.shown(path)}: {block[:60]}")
    assert not bare, "\n".join(bare)
