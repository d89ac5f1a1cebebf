"""An independent oracle: the invoices and the balance that a customer should have.

Slow, simple, written from RULES.md, DESIGN.md and `docs/subscriptions.md` and not from the code;
it imports `kernel` and its own modules and nothing else (a test holds that). It hears the same
facts as the product, in the same order, and at each run computes the whole history again. Where
product and oracle differ, one of them is wrong, and the documents say which.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from convergio.simulation.oracle_calendar import days_of
from convergio.simulation.oracle_holds import Plans
from convergio.simulation.oracle_life import Life
from convergio.simulation.oracle_money import Wallet, give_back
from convergio.simulation.oracle_owing import Key, Owed, Usage, owed
from convergio.simulation.oracle_papers import (
    Group,
    Invoice,
    Line,
    Note,
    Taken,
    Tax,
    credited_taxes,
    spread,
    sums_of,
    taxes_of,
    total_of,
)
from convergio.simulation.oracle_tax import File, Place, day_of, file_of, group_of
from convergio.simulation.oracle_units import Packs

_Wanted = tuple[Owed, int, str]
_Groups = Mapping[int, Group | None]
_TICK = timedelta(microseconds=1)
_EVENTS = frozenset({"use", "void", "amend"})
_MONEY = frozenset({"paid", "credit", "void_invoice", "give_up"})
_OFFERS = frozenset({"coupon", "archive", "redeem", "grant", "void_grant", "tax", "place"})


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened: `words` are the step's own, as the script has them."""

    at: datetime
    verb: str
    words: Mapping[str, str]


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
    wallet: Wallet = field(default_factory=Wallet)
    packs: Packs = field(default_factory=Packs)
    taxes: File | None = None
    place: Place = field(default_factory=Place)
    parked: bool = False
    least: int = 0

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
        elif fact.verb in _OFFERS:
            getattr(self, f"_{fact.verb}")(fact.words, fact.at)

    def life(self) -> tuple[Life, Usage]:
        """Live everything again, from the first fact."""
        life, usage = Life(self.plans, self.currency), Usage(self.meters)
        for number, fact in enumerate(self.facts):
            if fact.verb in _EVENTS:
                usage.told(fact.verb, fact.words, fact.at)
            elif fact.verb == "run":
                closed = datetime.fromisoformat(fact.words["closed"])
                life.pass_until(closed, number)
            elif fact.verb == "redeem":
                life.pass_until(fact.at, number)
            elif fact.verb not in _MONEY | _OFFERS:
                life.told(fact.verb, fact.words, fact.at, number)
        return life, usage

    def used(self, meter: str, start: datetime, end: datetime) -> Fraction:
        """Return what a meter comes to in `[start, end)`, as corrected so far."""
        _, usage = self.life()
        return usage.used(meter, start, end)

    def hard_limit(self, meter: str, at: datetime, since: datetime) -> Fraction | None:
        """Return what a hard quota leaves for the window since an instant (RULES 8, 9, 12)."""
        life, usage = self.life()
        life.pass_until(at, len(self.facts))
        return self.packs.limit(life, usage, meter, at, since)

    def units_left(self, at: datetime) -> dict[str, Fraction]:
        """Return what usage until now has not drawn of each grant in units."""
        life, usage = self.life()
        life.pass_until(at, len(self.facts))
        return self.packs.left(life, usage, at)

    def _bill(self, closed: datetime) -> None:
        """Bring what is billed to what is owed (RULES 1, 4, 5).

        A boundary with an invoice, and all before it, is over: a difference that belongs there
        waits for the next one, or goes on a final invoice when none can come any more.
        """
        life, usage = self.life()
        self.packs.bill(life, usage, self.facts[-1].at)
        dues = list(owed(life, usage, closed=closed, currency=self.currency))
        found = self._differences(dues, life, closed)
        wanted = [(boundary, found[boundary]) for boundary in sorted(found)]
        groups = {
            id(one): self._group(one) for _, some in wanted for one, more, _ in some if more > 0
        }
        self.parked = None in groups.values()
        if self.parked:
            return
        resting = life.live is None or life.live.state == "paused"
        for boundary, lines in list(self._made(wanted, groups, resting=resting)):
            if lines:
                self._finalise(Invoice(boundary, lines, self._taxed(lines)))

    def _differences(
        self, dues: Sequence[Owed], life: Life, closed: datetime
    ) -> dict[datetime, list[_Wanted]]:
        """Return what is owed and not billed, or the other way round, by boundary."""
        last = max((one.boundary for one in self.invoices), default=None)
        found: dict[datetime, list[_Wanted]] = {}
        late: list[_Wanted] = []
        for one in dues:
            missing = one.amount - self._billed(one.key)
            if not missing:
                continue
            boundary, reason = self._boundary(one, missing, last)
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
        return found

    def _made(
        self, wanted: Sequence[tuple[datetime, list[_Wanted]]], groups: _Groups, *, resting: bool
    ) -> Iterator[tuple[datetime, list[Line]]]:
        """Yield the lines of each invoice; what is too little to ask for joins the next one.

        What only gives back is not joined, and whoever leaves is asked for all.
        """
        waiting: list[list[_Wanted]] = []
        for boundary, some in wanted:
            joined = [*waiting, some]
            if self._asked(some) <= 0:
                yield boundary, self._drafted([some], groups)
            elif self._is_small(joined, groups):
                waiting = joined
            else:
                yield boundary, self._drafted(joined, groups)
                waiting = []
        if waiting and resting:
            last = max(at for at, some in wanted if some in waiting)
            yield last, self._drafted(waiting, groups)

    def _asked(self, some: Sequence[_Wanted]) -> int:
        """Return what a boundary asks for; of what was given away nothing is left to take back."""
        return sum(
            missing
            if missing > 0
            else -sum(back.amount for back in self._taken_back(one, -missing, reason))
            for one, missing, reason in some
        )

    def _is_small(self, joined: Sequence[Sequence[_Wanted]], groups: _Groups) -> bool:
        """Say whether they ask for something, and for less than is asked for: with tax, at once."""
        if not self.least:
            return False
        documents = deepcopy((self.invoices, self.notes, self.wallet))
        trial = replace(self, invoices=documents[0], notes=documents[1], wallet=documents[2])
        lines = trial._drafted(joined, groups)  # noqa: SLF001 - its own
        given = sum(note.total for note in trial.notes[len(self.notes) :])
        total = total_of(sum(line.net for line in lines), self._taxed(lines)) - given
        return bool(lines) and 0 < total < self.least

    def _group(self, one: Owed) -> Group | None:
        """Return how a fresh or late line is taxed (RULES 5): as when it fell due."""
        is_usage = one.key.kind == "usage"
        day = day_of(one.shown[1] if is_usage else one.due, one.zone, is_end=is_usage)
        return group_of(self.taxes, self.place, one.price, day)

    def _taxed(self, lines: Iterable[Line]) -> list[Tax]:
        return taxes_of((line.group, line.net) for line in lines)

    def _boundary(
        self, one: Owed, missing: int, last: datetime | None
    ) -> tuple[datetime | None, str]:
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

    def _drafted(self, joined: Sequence[Sequence[_Wanted]], groups: _Groups) -> list[Line]:
        """Return the lines of a boundary's invoice, in the order of `docs/howto/discounts.md`.

        Where a tax group would be negative, what takes back goes on credit notes (RULES 11).
        """
        lines: list[Line] = []
        backs: list[_Back] = []
        place = {id(one): n for n, some in enumerate(joined) for one, _, _ in some}
        for one, missing, reason in (each for some in joined for each in some):
            if missing > 0:
                fresh = one.quantity if reason in {"fee", "usage"} else None
                made = Line(one.key, one.name, one.shown, reason, missing, one.price, None, fresh)
                made.group = groups[id(one)] or made.group
                made.place = place[id(one)]
                lines.append(made)
            else:
                backs += self._taken_back(one, -missing, reason)
        backs = [back._replace(parts=give_back(back.line, back.discount)) for back in backs]
        lines.sort(key=_order)
        self.wallet.coupons_off(lines)
        nets = [*((line.group, line.net) for line in lines), *(back.net for back in backs)]
        apart = self.taxes is not None and self.taxes.apart
        if apart or any(net < 0 for net in sums_of(nets).values()):
            self._note_each([back for back in backs if back.amount != back.discount])
            backs = [back for back in backs if back.amount == back.discount]
        self.wallet.credit_off(lines, [back.net for back in backs])
        for one, reason, source, amount, discount, parts in backs:
            source.give(amount, discount)
            made = Line(one.key, one.name, one.shown, reason, -amount, one.price, source)
            made.group = source.group
            made.discount, made.taken = -discount, list(parts)
            made.place = place[id(one)]
            lines.append(made)
        lines.sort(key=_order)
        return lines

    def _taken_back(self, one: Owed, wanted: int, reason: str) -> Iterator["_Back"]:
        """Split what is too much over the lines that billed it, the newest first."""
        for line in sorted(self._lines(one.key), key=lambda line: -self._age(line)):
            amount = min(wanted, line.left) if line.amount > 0 else 0
            if amount > 0:
                wanted -= amount
                yield _Back(one, reason, line, amount, line.share(amount))

    def _age(self, line: Line) -> int:
        return next(n for n, one in enumerate(self.invoices) if any(x is line for x in one.lines))

    def _note_each(self, backs: Iterable["_Back"]) -> None:
        by_invoice: dict[int, list[_Back]] = {}
        for back in backs:
            by_invoice.setdefault(self._age(back.line), []).append(back)
        for number, group in by_invoice.items():
            parts = [(back.line, back.amount) for back in group]
            first = min(group, key=lambda back: (back.line.key.kind, back.line.key.start))
            self._give(number, first.reason, parts, corrects=True, returned=True)

    def _give(
        self,
        number: int,
        reason: str,
        parts: Sequence[tuple[Line, int]],
        *,
        corrects: bool,
        returned: bool = False,
    ) -> None:
        """Issue a credit note: to what is due first, the rest to the balance (RULES 11).

        One that corrects lowers what is billed, and gives coupons and credit their part back,
        unless they were `returned` it already.
        """
        invoice = self.invoices[number]
        shares = [(line, amount, line.share(amount)) for line, amount in parts]
        nets = [(line.group, amount - discount) for line, amount, discount in shares]
        taxes = credited_taxes(invoice.noted, nets)
        total = total_of(sum(net for _, net in nets), taxes)
        for line, amount, discount in shares:
            line.give(amount, discount)
            line.corrected += amount if corrects else 0
            if corrects and not returned:
                give_back(line, discount)
        applied = min(total, max(0, invoice.due))
        invoice.credited += applied
        self.balance += total - applied
        lines = [(line.name, amount, discount) for line, amount, discount in shares]
        self.notes.append(Note(number, reason, lines, taxes, total, applied))
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
        """Give back an invoice, of a line, or an amount over all lines by largest remainder."""
        number = int(words["invoice"])
        lines = self.invoices[number].lines
        parts = [(line, line.left) for line in lines if line.left]
        if "line" in words:
            parts = [(lines[int(words["line"])], int(words["amount"]))]
        elif "amount" in words:
            above = [line for line, left in parts if left > 0]
            shares = spread(int(words["amount"]), [line.left for line in above])
            parts = [part for part in zip(above, shares, strict=True) if part[1]]
        self._give(number, words["reason"], parts, corrects=words["kind"] == "correction")

    def _void(self, words: Mapping[str, str]) -> None:
        number = int(words["invoice"])
        invoice = self.invoices[number]
        parts = [(line, line.left) for line in invoice.lines if line.left]
        if parts:  # else everything was given back before, and there is nothing to say
            corrects = words["how"] == "reissue"
            self._give(number, f"void: {words['how']}", parts, corrects=corrects)
        invoice.state = "void"

    def _coupon(self, words: Mapping[str, str], _: datetime) -> None:
        self.wallet.offered[words["code"]] = words

    def _archive(self, words: Mapping[str, str], at: datetime) -> None:
        """Do nothing: what was redeemed goes on, and what is refused is not told."""

    def _redeem(self, words: Mapping[str, str], at: datetime) -> None:
        life, _ = self.life()
        life.pass_until(at, len(self.facts))
        lines = [x for one in self.invoices for x in one.lines if self._billed(x.key)]
        self.wallet.redeem(words, life, at, lines)

    def _grant(self, words: Mapping[str, str], _: datetime) -> None:
        (self.packs.told if "meter" in words else self.wallet.grant)(words)

    def _void_grant(self, words: Mapping[str, str], at: datetime) -> None:
        self.wallet.void_grant(words)
        self.packs.void(words["key"], at)

    def _tax(self, words: Mapping[str, str], _: datetime) -> None:
        self.taxes = file_of(words)

    def _place(self, words: Mapping[str, str], _: datetime) -> None:
        self.place = self.place.told(words)


class _Back(NamedTuple):
    """A part of a line that is taken back, with its share of the line's discount."""

    one: Owed
    reason: str
    line: Line
    amount: int
    discount: int
    parts: Sequence[Taken] = ()

    @property
    def net(self) -> tuple[Group, int]:
        """What it takes from the group of its line."""
        return self.line.group, self.discount - self.amount


def _order(line: Line) -> tuple[int, str, datetime, bool, int, int]:
    """Fees first, the older period first, what takes back before what replaces it, then age."""
    key = line.key
    return line.place, key.kind, key.start, line.amount > 0, key.agreement, key.hold


def _late(one: Owed, missing: int) -> str:
    first, last = days_of(one.shown, one.zone)
    what = "fee" if one.key.kind == "fixed" else "usage"
    days = first if first == last else f"{first} to {last}"
    said = "late" if missing > 0 else "credit: correction of"
    return f"{said} {what} for {days}"


def _close(invoice: Invoice) -> None:
    if invoice.state == "open" and invoice.due <= 0:
        invoice.state = "paid"
