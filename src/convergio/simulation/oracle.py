"""An independent oracle: the invoices and the balance that a customer should have.

Slow, simple, written from RULES.md, DESIGN.md and `docs/subscriptions.md` and not from the code;
it imports `kernel` and its own modules and nothing else (a test holds that). It hears the same
facts as the product, in the same order, and at each run computes the whole history again. Where
product and oracle differ, one of them is wrong, and the documents say which.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from convergio.simulation.oracle_calendar import Span, days_of
from convergio.simulation.oracle_life import Life, Plans
from convergio.simulation.oracle_owing import Key, Owed, Usage, limit_now, owed

_TICK = timedelta(microseconds=1)
_EVENTS = frozenset({"use", "void", "amend"})


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened: `words` are the step's own, as the script has them."""

    at: datetime
    verb: str
    words: Mapping[str, str]


@dataclass(slots=True)
class Line:
    """A line of an invoice. `given` was taken back of it; `corrected` of that lowers billed.

    One below zero names its source; giving such a line back gives the source back what it lost.
    """

    key: Key
    name: str
    span: Span
    reason: str
    amount: int
    source: "Line | None" = None
    quantity: Fraction | None = None
    given: int = 0
    corrected: int = 0

    @property
    def left(self) -> int:
        """What can still be given back of it."""
        return self.amount - self.given


@dataclass(slots=True)
class Invoice:
    """An invoice and what settled it."""

    boundary: datetime
    lines: list[Line]
    total: int
    from_balance: int = 0
    credited: int = 0
    paid: int = 0
    state: str = "open"

    @property
    def due(self) -> int:
        """What is still to be paid."""
        return self.total - self.from_balance - self.credited - self.paid


@dataclass(slots=True)
class Note:
    """A credit note of one invoice."""

    invoice: int
    reason: str
    lines: list[tuple[str, int]]
    total: int
    applied: int


@dataclass(slots=True)
class Account:
    """One customer: what was told, and the documents and the balance that follow."""

    plans: Plans
    meters: Mapping[str, Mapping[str, str]]
    currency: str
    facts: list[Fact] = field(default_factory=list)
    invoices: list[Invoice] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    balance: int = 0

    def told(self, fact: Fact) -> None:
        """Hear of something that happened."""
        self.facts.append(fact)
        if fact.verb == "run":
            closed = datetime.fromisoformat(fact.words["closed"])
            self._bill(closed)
        elif fact.verb == "paid":
            self._pay(int(fact.words["invoice"]), int(fact.words["amount"]))
        elif fact.verb == "credit":
            self._credit(fact.words)
        elif fact.verb == "void_invoice":
            self._void(fact.words)
        elif fact.verb == "give_up":
            self.invoices[int(fact.words["invoice"])].state = "uncollectible"

    def life(self) -> tuple[Life, Usage]:
        """Live everything again, from the first fact."""
        life, usage = Life(self.plans), Usage(self.meters)
        for number, fact in enumerate(self.facts):
            if fact.verb in _EVENTS:
                usage.told(fact.verb, fact.words, fact.at)
            elif fact.verb == "run":
                closed = datetime.fromisoformat(fact.words["closed"])
                life.pass_until(closed, number)
            elif fact.verb not in {"paid", "credit", "void_invoice", "give_up"}:
                life.told(fact.verb, fact.words, fact.at, number)
        return life, usage

    def used(self, meter: str, start: datetime, end: datetime) -> Fraction:
        """Return what a meter comes to in `[start, end)`, as corrected so far."""
        _, usage = self.life()
        return usage.used(meter, start, end)

    def hard_limit(self, meter: str, at: datetime) -> Fraction | None:
        """Return what a hard quota leaves for the present stretch (RULES 8, 9), or None."""
        life, usage = self.life()
        life.pass_until(at, len(self.facts))
        return limit_now(life, usage, meter, at)

    def _bill(self, closed: datetime) -> None:
        """Bring what is billed to what is owed (RULES 1, 4, 5).

        A boundary with an invoice, and all before it, is over: a difference that belongs there
        waits for the next one, or goes on a final invoice when none can come any more.
        """
        life, usage = self.life()
        dues = list(owed(life, usage, closed=closed, currency=self.currency))
        last = max((one.boundary for one in self.invoices), default=None)
        found: dict[datetime, list[tuple[Owed, int, str]]] = {}
        late: list[tuple[Owed, int, str]] = []
        for one in dues:
            missing = one.amount - self._billed(one.key)
            if not missing:
                continue
            boundary, reason = self._place(one, missing, last)
            if boundary is None:
                late.append((one, missing, reason))
            elif boundary <= closed:
                found.setdefault(boundary, []).append((one, missing, reason))
        if late and last is not None:
            coming = [one.due for one in dues if one.due > last and not one.is_empty]
            resting = life.live is None or life.live.state == "paused"
            if coming:
                found.setdefault(min(coming), []).extend(late)
            elif resting:
                found.setdefault(max(closed, last + _TICK), []).extend(late)
        drafts = [(boundary, self._drafted(found[boundary])) for boundary in sorted(found)]
        for boundary, lines in drafts:
            if lines:
                self._finalise(Invoice(boundary, lines, sum(line.amount for line in lines)))

    def _place(self, one: Owed, missing: int, last: datetime | None) -> tuple[datetime | None, str]:
        """Return the boundary of a difference, None where that is over, and what it is called."""
        if not any(self._lines(one.key)) and (last is None or one.due > last):
            return one.due, "fee" if one.key.kind == "fixed" else "usage"
        if missing < 0 and one.cut is not None:
            over = last is not None and one.cut <= last
            return None if over else one.cut, f"credit: {one.why}"
        return None, _late(one, missing)

    def _billed(self, key: Key) -> int:
        return sum(line.amount - line.corrected for line in self._lines(key))

    def _lines(self, key: Key) -> Iterator[Line]:
        return (line for one in self.invoices for line in one.lines if line.key == key)

    def _drafted(self, wanted: Sequence[tuple[Owed, int, str]]) -> list[Line]:
        """Return the lines of a boundary's invoice; where it would be negative, credit notes."""
        lines: list[Line] = []
        backs: list[tuple[Owed, str, Line, int]] = []
        for one, missing, reason in wanted:
            if missing > 0:
                fresh = one.quantity if reason in {"fee", "usage"} else None
                lines.append(Line(one.key, one.name, one.shown, reason, missing, None, fresh))
            else:
                backs += self._taken_back(one, -missing, reason)
        total = sum(line.amount for line in lines) - sum(amount for _, _, _, amount in backs)
        if total < 0:
            self._note_each(backs)
            backs = []
        for one, reason, source, amount in backs:
            source.given += amount
            lines.append(Line(one.key, one.name, one.shown, reason, -amount, source))
        lines.sort(key=lambda line: (line.key.kind, line.key.start, line.amount > 0))
        return lines

    def _taken_back(
        self, one: Owed, wanted: int, reason: str
    ) -> Iterator[tuple[Owed, str, Line, int]]:
        """Split what is too much over the lines that billed it, the newest first."""
        for line in sorted(self._lines(one.key), key=lambda line: -self._age(line)):
            amount = min(wanted, line.left) if line.amount > 0 else 0
            if amount > 0:
                wanted -= amount
                yield one, reason, line, amount

    def _age(self, line: Line) -> int:
        return next(n for n, one in enumerate(self.invoices) if any(x is line for x in one.lines))

    def _note_each(self, backs: Iterable[tuple[Owed, str, Line, int]]) -> None:
        by_invoice: dict[int, list[tuple[Owed, str, Line, int]]] = {}
        for back in backs:
            by_invoice.setdefault(self._age(back[2]), []).append(back)
        for number, group in by_invoice.items():
            for _, _, line, amount in group:
                line.corrected += amount
            reason = group[0][1]
            self._give(number, reason, [(line, amount) for _, _, line, amount in group])

    def _give(self, number: int, reason: str, parts: Sequence[tuple[Line, int]]) -> None:
        """Issue a credit note: to what is due first, the rest to the balance (RULES 11)."""
        invoice = self.invoices[number]
        total = sum(amount for _, amount in parts)
        for line, amount in parts:
            line.given += amount
            if line.source is not None:
                line.source.given += amount
        applied = min(total, max(0, invoice.due))
        invoice.credited += applied
        self.balance += total - applied
        lines = [(line.name, amount) for line, amount in parts]
        self.notes.append(Note(number, reason, lines, total, applied))
        _close(invoice)

    def _finalise(self, invoice: Invoice) -> None:
        """Issue an invoice; the balance pays it as far as it goes."""
        invoice.from_balance = min(self.balance, invoice.total)
        self.balance -= invoice.from_balance
        self.invoices.append(invoice)
        _close(invoice)

    def _pay(self, number: int, amount: int) -> None:
        if number >= len(self.invoices):
            return  # of an invoice that should not be: the comparison says so
        invoice = self.invoices[number]
        excess = max(0, amount - max(0, invoice.due))
        invoice.paid += amount - excess
        self.balance += excess
        if invoice.state == "uncollectible" and invoice.due <= 0:
            invoice.state = "paid"
        _close(invoice)

    def _credit(self, words: Mapping[str, str]) -> None:
        """Give back a whole invoice, or an amount spread over its lines by largest remainder."""
        number = int(words["invoice"])
        lines = self.invoices[number].lines
        parts = [(line, line.left) for line in lines if line.left]
        if "amount" in words:
            parts = _spread(int(words["amount"]), [part for part in parts if part[1] > 0])
        if words["kind"] == "correction":
            for line, amount in parts:
                line.corrected += amount
        self._give(number, words["reason"], parts)

    def _void(self, words: Mapping[str, str]) -> None:
        number = int(words["invoice"])
        invoice = self.invoices[number]
        parts = [(line, line.left) for line in invoice.lines if line.left]
        if words["how"] == "reissue":
            for line, amount in parts:
                line.corrected += amount
        if parts:  # else everything was given back before, and there is nothing to say
            self._give(number, f"void: {words['how']}", parts)
        invoice.state = "void"


def _spread(amount: int, parts: Sequence[tuple[Line, int]]) -> list[tuple[Line, int]]:
    """Share an amount by what is left of each line: floors, then the largest remainders."""
    whole = sum(left for _, left in parts)
    exact = [Fraction(amount * left, whole) for _, left in parts]
    shares = [int(part) for part in exact]
    order = sorted(range(len(parts)), key=lambda n: (shares[n] - exact[n], n))
    for n in order[: amount - sum(shares)]:
        shares[n] += 1
    return [(line, share) for (line, _), share in zip(parts, shares, strict=True) if share]


def _late(one: Owed, missing: int) -> str:
    first, last = days_of(one.shown, one.zone)
    what = "fee" if one.key.kind == "fixed" else "usage"
    days = first if first == last else f"{first} to {last}"
    said = "late" if missing > 0 else "credit: correction of"
    return f"{said} {what} for {days}"


def _close(invoice: Invoice) -> None:
    if invoice.state == "open" and invoice.due <= 0:
        invoice.state = "paid"
