"""What STYLE asks of every file, so that no reviewer has to say it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.arch import house

FILE_LINES_MAX = 500
TEST_FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100

BANNED_NAMES = re.compile(r"(utils?|helpers?|commons?|managers?|services?|bases?)$")
# written so that this file does not find itself
PROMISES = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b")
OPT_OUT = re.compile(
    r"#\s*(noqa|type:\s*ignore)(?P<codes>[:\[]\s*[\w-]+(?:,\s*[\w-]+)*\]?)?(?P<rest>.*)"
)

DOMAIN_FILES = frozenset(
    "__init__.py model.py rules.py errors.py queries.sql store.py actions.py jobs.py"
    " personal.py".split()
)
# What a domain holds beyond that: name it here with the reason.
DOMAIN_EXTRAS = {
    "billing": {
        "auditing.py",  # documents computed a second time from their lines, for `verify`: pure
        "bearing.py",  # what lines bear: discount shares, tax groups, revenue without tax: pure
        "charging.py",  # from owed to payable: coupons, netting, credit, tax
        "checking.py",  # verify and the nightly recompute: reads page by page
        "recomputing.py",  # owed less billed of everything, closed periods too: pure
        "declaring.py",  # the tax in the seller's currency and where it is due, beside all else
        "redeeming.py",  # redeems a coupon, which asks what is billed already
        "reporting.py",  # what a run did, apart from what invoices are
        "buying.py",  # the buyer as a document names them, for the run and the verbs beside it
        "correcting.py",  # the verbs that take back what was billed, apart from the run
        "crediting.py",  # their pure decisions: caps, netting, what a credit note holds
        "replaying.py",  # the past billed again in memory, for what-if: reads once, writes nothing
        "explaining.py",  # preview and explain: what would be billed, and why something was
        "gathering.py",  # what is not worth asking for waits: pure
        "sellers.py",  # who issued a document, as they were, and names of its files: pure
        "issuing.py",  # writes invoices and credit notes, for the run and for those verbs
        "owing.py",  # what is owed, pure and apart from what is billed
        "running.py",  # the run: pages shared out among workers and other runs
        "settling.py",  # bulk reads around the pure difference, for run, preview and dry run
        "terms.py",  # how a customer pays, which payments asks as well
        "documents.py",  # invoice and credit note as PDF, one compiler a thread
        "page.py",  # what the page says, and its sums: pure
        "wording.py",  # labels, legal sentences, numbers and days in the reader's language: pure
        "marking.py",  # the Factur-X properties that typst cannot put into a PDF
        "einvoices.py",  # what a tax authority reads, the one value behind both formats: pure
        "factur_x.py",  # ... as XML of EN 16931
        "fatturapa.py",  # ... as the Italian XML
        "xml_tree.py",  # the lines of code that both of them share
        "rendering.py",  # from a number or a month to files, on all processors
        "invoice.typ",  # ... from this template
    },
    "catalog": {
        "selling.py",  # reads what a plan of the file sells, apart from meters and differences
        "describing.py",  # entries as texts, for the difference that `plan` shows
        "showing.py",  # the catalog as JSON, for the command line and for HTTP
        "example.yaml",  # the catalog that an empty database starts with
    },
    "customers": {
        "countries.py",  # which countries there are, the one seam to Babel's list: pure
    },
    "discounts": {
        "describing.py",  # coupons as JSON, for the command line and for HTTP
    },
    "entitlements": {
        "describing.py",  # grants as JSON, for the command line and for HTTP
        "grants.py",  # prepaid credit: made, listed and voided, apart from deciding
        "quick.py",  # decides in two round trips what nothing stands against, apart from why not
        "repeating.py",  # asks that come again under their own id
        "levels.py",  # asks of maxima and last values, of which nothing is held
        "leases.py",  # slices of a quota: verbs of their own, with a life cycle of their own
        "spending.py",  # the cap in money, and its lock, which every decision asks first
    },
    "payments": {
        "history.py",  # a customer's documents and payments as one list
        "checking.py",  # verify: sums of what attempts, receipts and invoices say
        "receiving.py",  # money that no gateway took, apart from what is collected
        "following.py",  # what follows for a customer from both of them
    },
    "taxes": {
        "reference.py",  # the reference rates of the ECB and their calendar: pure
        "stating.py",  # the verbs of the tax in another currency, apart from the tax file
        "numbers.py",  # the offline check of tax numbers, the one seam to python-stdnum
    },
    "subscriptions": {
        "adding.py",  # the verbs of what a customer takes beside the plan
        "limits.py",  # pure: what an agreement lets its windows use
        "changes.py",  # the verbs that change a running subscription
        "gathering.py",  # a page of customers for the run, read in few queries
        "negotiating.py",  # ... and of prices that one customer alone has
        "repricing.py",  # moves everyone to a newer price, over many transactions
        "parts.py",  # which items are the plan's and which are not: pure
        "steps.py",  # the steps that those verbs and renewal share
    },
    "metering": {
        "archive.py",  # months out to files and in again: verbs over many transactions
        "retention.py",  # ... and away, once their archive is proved
        "records.py",  # the files of an archive, apart from when they are written
        "corrections.py",  # void and amend: verbs of one event, apart from counting many
        "slicing.py",  # usage by a value of a dimension, for prices that ask by it
        "totals.py",  # moves totals by aggregation, for both of them
        "alerts.py",  # what is told once a period or window, for totals, groups and followers
        "allowance.py",  # pure: what windows share of an allowance and draw of credit
        "following.py",  # moves what later windows may use when an earlier one moves
        "laying.py",  # lays windows again when the schedule changed, and counts again
        "schedule.py",  # pure: where windows begin and end
        "windows.py",  # opens windows and groups, for counting, correcting and changing plans
        "ingest.py",  # the hot path keeps caches between batches, which an action may not
        "intake.py",  # the pure loop from events to rows, apart from windows and schedules
        "reading.py",  # the wire format of events, decoded apart from what they mean
    },
}
DOMAIN_FOLDERS = {
    "payments": {"gateways"},  # one module a processor, behind one protocol
    "billing": {"fonts"},  # packaged, so that an invoice looks the same on every machine
}

CODE = house.modules(house.SOURCE, house.TESTS)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(house.tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = []
    for path in CODE:
        limit = TEST_FILE_LINES_MAX if path.is_relative_to(house.TESTS) else FILE_LINES_MAX
        if (count := len(lines(path))) > limit:
            long.append(f"{house.shown(path)}: {count} lines, at most {limit}")
    assert not long, "\n".join(long)


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{house.shown(path)}:{node.lineno} {node.name}: {size} lines"
        for path in CODE
        for node in functions(path)
        if (size := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_no_line_is_wider_than_the_page() -> None:
    files = [*CODE, *sorted(house.SERVER.rglob("*.sql"))]
    wide = [
        f"{house.shown(path)}:{number}: {len(line)} columns"
        for path in files
        for number, line in enumerate(lines(path), 1)
        if len(line) > COLUMNS_MAX
    ]
    assert not wide, "\n".join(wide)


def test_every_module_says_why_it_exists() -> None:
    silent = [house.shown(p) for p in CODE if len(ast.get_docstring(house.tree(p)) or "") < 20]
    assert not silent, "\n".join(silent)


def test_no_module_has_a_name_that_says_nothing() -> None:
    folders = {p.parent for p in CODE}
    names = [*CODE, *(f for f in folders if f.is_relative_to(house.SOURCE))]
    vague = [house.shown(path) for path in names if BANNED_NAMES.fullmatch(path.stem)]
    assert not vague, "\n".join(vague)


def test_nothing_is_promised_for_later() -> None:
    files = [p for p in house.tracked() if p.suffix in {".py", ".sql", ".md", ".typ", ".toml", ""}]
    found = [
        f"{house.shown(path)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(lines(path), 1)
        if PROMISES.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_import_hides_inside_a_function() -> None:
    hidden = [
        f"{house.shown(path)}:{node.lineno}"
        for path in CODE
        for function in functions(path)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not hidden, "\n".join(hidden)


def test_no_import_is_dodged_or_mocked() -> None:
    banned = ("typing.TYPE_CHECKING", "unittest.mock", "mock")
    found = [
        f"{house.shown(path)}:{line}: {name}"
        for path in CODE
        for line, name in house.imports(path)
        if any(name == ban or name.startswith(f"{ban}.") for ban in banned)
    ]
    assert not found, "\n".join(found)


def test_every_opt_out_of_a_check_names_the_rule_and_the_reason() -> None:
    bare = [
        f"{house.shown(path)}:{number}: {line.strip()}"
        for path in CODE
        if path != Path(__file__)
        for number, line in enumerate(lines(path), 1)
        if (found := OPT_OUT.search(line))
        and (not found["codes"] or not re.match(r"\s*(-|#)\s*\w", found["rest"]))
    ]
    assert not bare, "\n".join(bare)


def test_a_domain_holds_only_the_files_that_every_domain_may_hold() -> None:
    strangers = [
        house.shown(path)
        for domain in sorted(house.DOMAINS)
        for path in sorted((house.SERVER / domain).glob("*"))
        if path.name != "__pycache__"
        and path.name not in (DOMAIN_FOLDERS if path.is_dir() else DOMAIN_EXTRAS).get(domain, set())
        and (path.is_dir() or path.name not in DOMAIN_FILES)
    ]
    assert not strangers, "\n".join(strangers)
