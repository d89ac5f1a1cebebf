"""Read a YAML file that a person wrote, and trust nothing in it.

YAML as a language guesses types (`1.10` becomes 1.1, `no` becomes false) and can refer to itself.
Here every scalar stays the text that was written, so an amount is never a float; a plain `null`,
`~` or nothing is None. Anchors, aliases (so cycles and bombs), tags, a second document and a
repeated key are refused. Reading is one loop over libyaml's events with its own stack: depth and
size are bounded, and nothing in a file can make Python recurse or build an object.

`read` gives text, lists and mappings; `typed` turns them into a msgspec type. Each raises
`Invalid` in one line: the code, the path of the field (`plans[1].prices[0].charge.unit`; a line
number where there is no field yet) and the mend.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import yaml

from convergio.kernel.errors import Invalid, require

Plain: TypeAlias = "str | list[Plain] | dict[str, Plain] | None"
Typed = TypeVar("Typed")

SIZE_MAX_BYTES: Final = 1 << 20
DEPTH_MAX: Final = 32
SHOWN_MAX: Final = 80
KEYS_TRIED_MAX: Final = 100
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
# YAML 1.2.2 production [1] c-printable, and no control character smuggled in as an escape.
_FORBIDDEN: Final = re.compile(
    "[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]"
)
_CONTROL: Final = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f\\ud800-\\udfff]")
_UNPRINTED: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
_AT: Final = re.compile(r"(?P<problem>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
# What a type's own check says: `tiers[0].up_to: write more than 5, where it begins`.
_OWN: Final = re.compile(r"([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+)?): (.+)", re.DOTALL)
_NAMED: Final = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_WORDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "int": "a whole number",
    "null": "nothing",
    "object": "a mapping",
    "str": "text",
}
_LOADER: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def shown(value: object) -> str:
    """Return a value as it may stand in a one-line message: short, no control characters."""
    text = _UNPRINTED.sub("?", str(value))
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 3]}..."


def joined(path: str, name: str) -> str:
    """Return the path of a field inside the thing at `path`."""
    return f"{path}.{name}" if path else name


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is still open, where it is, and the key that waits for its value."""

    path: str
    items: list[Plain] | dict[str, Plain]
    key: str | None = None
    seen: set[str] = field(default_factory=set)

    def next_path(self) -> str:
        """Return the path of the value that comes next."""
        if isinstance(self.items, list):
            return f"{self.path}[{len(self.items)}]"
        return joined(self.path, shown(self.key)) if self.key is not None else self.path

    def take_key(self, key: str) -> None:
        """Remember a key. Raises: Invalid when the mapping has it already."""
        where = joined(self.path, shown(key))
        if key in self.seen:
            detail = "the same key stands twice in one mapping; remove one of them"
            raise Invalid(detail, code="duplicate_key", field=where)
        self.seen.add(key)
        self.key = key

    def take(self, value: Plain) -> None:
        """Put a finished value in its place."""
        if isinstance(self.items, list):
            self.items.append(value)
            return
        require(self.key is not None, "a mapping's value came without its key")
        self.items[self.key or ""] = value
        self.key = None

    def wants_key(self) -> bool:
        """Say whether a mapping's key comes next."""
        return isinstance(self.items, dict) and self.key is None


class _Builder:
    """Build plain values from events, without recursion."""

    def __init__(self) -> None:
        self.frames: list[_Frame] = [_Frame("", [])]
        self.documents = 0

    def take(self, event: yaml.Event) -> None:
        """Take one event. Raises: Invalid for what this reader refuses."""
        match event:
            case yaml.DocumentStartEvent():
                self._document(event)
            case yaml.AliasEvent():
                raise self._refused("alias_refused", "an alias (*name)", "write the value out")
            case yaml.ScalarEvent():
                self._checked(event)
                self._scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._checked(event)
                self._open({} if isinstance(event, yaml.MappingStartEvent) else [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self.frames.pop()
                self.frames[-1].take(frame.items)
            case _:
                pass

    def result(self) -> Plain:
        """Return the one document. Raises: Invalid when there is none."""
        values = self.frames[0].items
        if not isinstance(values, list) or not values:
            detail = "there is nothing in the file; write the catalog in it"
            raise Invalid(detail, code="empty", field="line 1")
        return values[0]

    def _where(self) -> str:
        frame = self.frames[-1]
        return "" if len(self.frames) == 1 else frame.next_path()

    def _refused(self, code: str, what: str, mend: str) -> Invalid:
        detail = f"{what} is not accepted here; {mend}"
        return Invalid(detail, code=code, field=self._where() or "line 1")

    def _document(self, event: yaml.DocumentStartEvent) -> None:
        self.documents += 1
        if self.documents > 1:
            detail = "a second document begins after the first; keep one in the file"
            raise Invalid(detail, code="second_document", field=_line(event.start_mark))

    def _checked(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            raise self._refused("alias_refused", "an anchor (&name)", "write the value out")
        if getattr(event, "tag", None) is not None:
            raise self._refused("tag_refused", "a tag (!name)", "write the value without it")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        text, frame = event.value, self.frames[-1]
        if _CONTROL.search(text):
            raise self._refused("bad_character", "a NUL or control character", "remove it")
        if frame.wants_key():
            frame.take_key(text)
        else:
            frame.take(None if event.implicit[0] and text in _NULLS else text)

    def _open(self, items: list[Plain] | dict[str, Plain]) -> None:
        if self.frames[-1].wants_key():
            raise self._refused("bad_key", "a list or mapping as a key", "write a name")
        if len(self.frames) > DEPTH_MAX:
            raise self._refused("too_deep", f"nesting deeper than {DEPTH_MAX}", "flatten it")
        self.frames.append(_Frame(self._where(), items))


def read(source: bytes) -> Plain:
    """Return what the file holds. Raises: Invalid."""
    text = _text(source)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.YAMLError as error:
        raise _malformed(error, text) from None
    return builder.result()


def typed(plain: Plain, type_: type[Typed], *, mends: Mapping[str, str]) -> Typed:
    """Return plain values as `type_`.

    `mends` gives a sentence a field name: what to write there. Raises: Invalid.
    """
    try:
        return msgspec.convert(plain, type_, strict=False)
    except msgspec.ValidationError as error:
        found = _AT.fullmatch(str(error))
        require(found is not None, "every message matches: the pattern takes any text")
        problem, path = (found["problem"], found["path"] or "") if found else ("", "")
        path = _exact(plain, type_, str(error), path).lstrip(".")
    raise _invalid(problem, path, mends)


def _text(source: bytes) -> str:
    """Decode the file. Raises: Invalid when it is too large, not UTF-8, or not text."""
    if len(source) > SIZE_MAX_BYTES:
        detail = "the file is larger than 1 MiB; remove what is not needed"
        raise Invalid(detail, code="too_large", field="file")
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        detail = "the file is not UTF-8 from here on; save it as UTF-8"
        raise Invalid(detail, code="not_utf8", field=f"line {line}") from None
    bad = _FORBIDDEN.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        detail = f"the character U+{ord(bad[0]):04X} may not stand in YAML; remove it"
        raise Invalid(detail, code="bad_character", field=f"line {line}")
    return text


def _malformed(error: yaml.YAMLError, text: str) -> Invalid:
    """Say what libyaml found, and the mend where a tab is to blame."""
    mark = getattr(error, "problem_mark", None)
    lines = text.split("\n")
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        detail = "the line is indented with a tab; indent with spaces"
        return Invalid(detail, code="tab_indent", field=_line(mark))
    problem = shown(getattr(error, "problem", None) or "the text cannot be read")
    detail = f"this is not YAML ({problem}); correct the line or the one before it"
    return Invalid(detail, code="malformed", field=_line(mark))


def _line(mark: yaml.Mark | Any) -> str:  # noqa: ANN401 - libyaml's own mark is another class
    return f"line {mark.line + 1}" if mark is not None else "line 1"


def _exact(plain: Plain, type_: type[Any], message: str, path: str) -> str:
    """Return `path` with the key of a free mapping, which msgspec writes as `[...]`, found."""
    before, dots, after = path.partition("[...]")
    place = _at(plain, before) if dots else None
    if not isinstance(place, dict) or len(place) > KEYS_TRIED_MAX:
        return path
    others = dict(place)
    try:
        for key, value in others.items():
            place.clear()
            place[key] = value
            if _complaint(plain, type_) == message:
                return f"{before}.{shown(key)}{after}"
    finally:
        place.clear()
        place.update(others)
    return path


def _complaint(plain: Plain, type_: type[Any]) -> str:
    try:
        msgspec.convert(plain, type_, strict=False)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _at(plain: Plain, path: str) -> Plain:
    """Return the value at a path of names and positions."""
    for name, position in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path):
        if isinstance(plain, dict) and name:
            plain = plain.get(name)
        elif isinstance(plain, list) and position:
            plain = plain[int(position)]
        else:
            return None
    return plain


def _invalid(problem: str, path: str, mends: Mapping[str, str]) -> Invalid:
    """Turn msgspec's words into a code, a path, and a sentence that ends with the mend."""
    named = _NAMED.fullmatch(problem)
    if named is not None:
        name = named[2]
        where = joined(path, shown(name))
        if named[1] == "contains unknown":
            detail = "there is no such field here; remove it or correct its name"
            return Invalid(detail, code="unknown_field", field=where)
        detail = f"the field is missing; {mends.get(name, 'add it')}"
        return Invalid(detail, code=f"missing_{name}", field=where)
    own = _OWN.fullmatch(problem)
    if own is not None:
        return Invalid(own[2], code="bad_value", field=joined(path, own[1]))
    name = re.sub(r"\[[^\]]*\]", "", path).rpartition(".")[2]
    detail = f"{_plain_words(problem)}; {mends.get(name, 'correct it')}"
    return Invalid(detail, code="bad_value", field=path or "line 1")


def _plain_words(problem: str) -> str:
    """Return msgspec's words as a person would say them."""
    if " matching regex " in problem:
        return "this form is not accepted"
    words = re.sub(r"`([a-z]+)( \| null)?`", lambda found: _WORDS.get(found[1], found[1]), problem)
    words = re.sub(r"Invalid (?:enum )?value ('.*')", r"\1 is not known here", words)
    return f"{shown(words)[:1].lower()}{shown(words)[1:]}"
