"""The oracle's idea of a subscription: who had which price from when until when.

Written from RULES.md 3, 8, 10, `docs/subscriptions.md` and `docs/howto/{catalog,agreements}.md`. A
life is told what happened, in order, and is told everything again from the first day whenever
someone asks, so that nothing is carried over from an earlier answer. What is due by itself (the end
of a trial, a change or an end that waits) happens at its own instant, whenever it is looked at.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from convergio.simulation import oracle_parts as parts
from convergio.simulation.oracle_calendar import span_at, turn
from convergio.simulation.oracle_holds import (
    PAUSED,
    Agreement,
    Change,
    Hold,
    Plans,
    interval,
    opens_anew,
)

_LONGEST_FIRST = ("year", "quarter", "month", "week", "day")


class Life:
    """The subscriptions of one customer, as told."""

    def __init__(self, plans: Plans, currency: str = "usd") -> None:
        """Begin with nothing; `plans` is the catalog file's, by key."""
        self.shop = parts.Shop(plans, currency)
        self.agreements: list[Agreement] = []
        self.payable = False

    @property
    def live(self) -> Agreement | None:
        """The one that is not canceled."""
        return next((one for one in self.agreements if one.state != "canceled"), None)

    def told(self, verb: str, words: Mapping[str, str], at: datetime, fact: int) -> None:
        """Hear of one thing that happened."""
        if verb == "card":
            self.payable = True
        elif verb == "reprice":
            self.shop.reprice(words)
        elif verb == "subscribe":
            self._subscribe(words, at, fact)
        elif (live := self.live) is not None:
            self.pass_until(at, fact)
            live = self.live
            if live is not None:
                _DEEDS[verb](self, live, words, at, fact)

    def pass_until(self, until: datetime, fact: int) -> None:
        """Let everything happen that is due by an instant, in its own order."""
        while (live := self.live) is not None:
            if live.state == "trialing" and live.anchor <= until:
                self._end_trial(live, fact)
            elif live.ends_at is not None and live.ends_at <= until:
                self._stop(live, live.ends_at, fact, credited=False, why="")
            elif live.waiting and live.waiting[0].at <= until:
                change = live.waiting.pop(0)
                self._go_to(live, change, max(change.at, live.anchor), fact)
            else:
                return

    def _subscribe(self, words: Mapping[str, str], at: datetime, fact: int) -> None:
        """Begin anew: all that is asked once is asked, also of who canceled at this instant."""
        start = datetime.fromisoformat(words["start"]) if "start" in words else at
        follows = next((one for one in reversed(self.agreements) if one.ended_at == start), None)
        days = int(words.get("trial", "0"))
        plan, seats = words["plan"], int(words.get("seats", "1"))
        made = self._begin(
            Change(start + timedelta(days=days), plan, self.shop.sold(plan), seats),
            zone=words.get("zone", "UTC"),
            state="trialing" if days else "active",
            by_calendar=words.get("anchor") == "calendar",
            fact=fact,
        )
        made.asked += follows.once_asked() if follows else []
        made.policy = words.get("without", "activate")
        made.fallback = words.get("fallback")

    def _begin(
        self,
        to: Change,
        *,
        zone: str,
        state: str,
        fact: int,
        by_calendar: bool = False,
        asked: Sequence[str] = (),
    ) -> Agreement:
        """Begin a subscription; one of the calendar is anchored where the longest period begins."""
        anchor = to.at
        if by_calendar:
            held = {interval(price) for price in to.prices if price.get("once") != "true"}
            longest = next((each for each in _LONGEST_FIRST if each in held), "month")
            anchor = turn(to.at, zone, longest)
        made = Agreement(
            len(self.agreements), to.plan, zone, anchor, to.seats, state, fact,
            by_calendar=by_calendar, asked=list(asked),
        )  # fmt: skip
        self.agreements.append(made)
        self._take(made, to, fact)
        return made

    def _take(self, live: Agreement, to: Change, fact: int) -> None:
        for price in to.prices:
            live.hold(price, to.at, fact, count=to.seats)
        live.plan, live.seats, live.pinned = to.plan, to.seats, to.prices

    def _end_trial(self, live: Agreement, fact: int) -> None:
        live.state = "active"
        if self.payable or live.policy == "activate":
            return
        if live.policy == "pause":
            live.state, live.waiting = "paused", []
            live.stop(live.anchor, credited=True, why=PAUSED, fact=fact)
            return
        plan, live.waiting = str(live.fallback), []
        change = Change(live.anchor, plan, self.shop.sold(plan), 1)
        self._go_to(live, change, live.anchor, fact)

    def _change(self, live: Agreement, words: Mapping[str, str], at: datetime, fact: int) -> None:
        plan = words.get("plan", live.plan)
        prices = live.pinned if plan == live.plan else self.shop.sold(plan)
        seats = int(words.get("seats", live.seats))
        later = "period_end" if plan == live.plan and seats < live.seats else "now"
        if words.get("when", later) == "period_end":
            live.waiting = [Change(self.paid_until(live, at), plan, prices, seats)]
            return
        if plan != live.plan:
            live.waiting = []
        else:
            live.waiting = [one._replace(seats=seats) for one in live.waiting]
        self._go_to(live, Change(at, plan, prices, seats), max(at, live.anchor), fact)

    def _go_to(self, live: Agreement, to: Change, at: datetime, fact: int) -> None:
        """Change at an instant: on the same anchor, or with new periods (RULES 10)."""
        why = f"plan changed to {to.plan}"
        if to.plan == live.plan:
            seats = to.seats != live.seats
            why = f"seats changed to {to.seats}" if seats else "price changed as agreed"
        paid = live.state != "trialing" and at > live.anchor
        if to.plan != live.plan and paid and opens_anew(live.pinned, to.prices):
            self._open_anew(live, to, at, fact, why=why)
            return
        for hold in live.of_plan():
            same = any(hold.price is price for price in to.prices)
            per_seat = hold.price["charge"]["model"] == "seat"
            if not same or (per_seat and hold.count != to.seats):
                hold.end(at, credited=True, why=why, fact=fact)
        if to.plan != live.plan:
            for hold in live.to_ask(at, ""):
                if all(hold.price is not price for price in to.prices):
                    hold.end(at, credited=True, why=why, fact=fact)
        held = live.of_plan()
        for price in to.prices:
            if all(hold.price is not price for hold in held):
                live.hold(price, at, fact, count=to.seats)
        live.plan, live.seats, live.pinned = to.plan, to.seats, to.prices

    def _open_anew(
        self, live: Agreement, to: Change, at: datetime, fact: int, *, why: str
    ) -> Agreement:
        """End a subscription and begin another in its place; its add-ons go on beside that."""
        beside = [hold for hold in live.lasting(at) if hold.beside and hold.until is None]
        self._stop(live, at, fact, credited=True, why=why)
        made = self._begin(
            to._replace(at=at), zone=live.zone, state="active", fact=fact,
            by_calendar=live.by_calendar, asked=live.once_asked(),
        )  # fmt: skip
        for hold in beside:
            made.hold(hold.price, at, fact, count=hold.count, add=hold.beside)
        return made

    def _drop(self, live: Agreement, _: Mapping[str, str], __: datetime, ___: int) -> None:
        live.waiting = []

    def _pause(self, live: Agreement, _: Mapping[str, str], at: datetime, fact: int) -> None:
        live.state, live.waiting = "paused", []
        live.stop(at, credited=True, why=PAUSED, fact=fact)

    def _resume(self, live: Agreement, _: Mapping[str, str], at: datetime, fact: int) -> None:
        """Go on with what the pause ended; after a trial without a method this is the beginning."""
        beside = [h for h in live.holds if h.beside and h.why == PAUSED and _last(live, h)]
        again = Change(at, live.plan, live.pinned, live.seats)
        if not any(h.until and h.until > h.since for h in live.holds):
            made = self._open_anew(live, again, at, fact, why="")
        else:
            live.state, made = "active", live
            self._take(live, again, fact)
        for hold in beside:
            made.hold(hold.price, at, fact, count=hold.count, add=hold.beside)

    def _cancel(self, live: Agreement, words: Mapping[str, str], at: datetime, fact: int) -> None:
        if words.get("at") == "period_end":
            live.ends_at, live.waiting = self.paid_until(live, at), []
            return
        credited = words.get("credit") == "yes"
        self._stop(live, at, fact, credited=credited, why="canceled")

    def _reactivate(self, live: Agreement, _: Mapping[str, str], __: datetime, ___: int) -> None:
        live.ends_at = None

    def _stop(self, live: Agreement, at: datetime, fact: int, *, credited: bool, why: str) -> None:
        live.state, live.ended_at, live.waiting = "canceled", at, []
        live.stop(at, credited=credited, why=why, fact=fact)

    def _add_on(self, live: Agreement, words: Mapping[str, str], at: datetime, fact: int) -> None:
        later = self.paid_until(live, at) if words.get("when") == "period_end" else None
        parts.add_on(self.shop, live, words, max(at, live.anchor), fact, later=later)

    def _charge(self, live: Agreement, words: Mapping[str, str], at: datetime, fact: int) -> None:
        soon = at
        if words["when"] == "period_end":
            ends = [live.anchor] if live.anchor > at else _ends(live, at)
            soon = min(ends, default=at)
        parts.charge(live, words, soon, fact)

    def _agree(self, live: Agreement, words: Mapping[str, str], at: datetime, fact: int) -> None:
        """Agree on prices; what begins now takes the place of the plan's at once."""
        live.waiting = []
        for change in parts.agreed(live, words, at):
            if change.at == at:
                self._go_to(live, change, max(at, live.anchor), fact)
            else:
                live.waiting.append(change)

    def _migrate(self, live: Agreement, words: Mapping[str, str], at: datetime, _: int) -> None:
        """Wait for a newer version of a price; who is paused keeps what they had."""
        change = parts.migrated(self.shop, live, words, at)
        if change and live.state != "paused":
            live.waiting = [change]

    def paid_until(self, live: Agreement, at: datetime) -> datetime:
        """Return the last end of the periods that run now."""
        return max((end for _, end in spans_now(live, at)), default=max(at, live.anchor))


def spans_now(live: Agreement, at: datetime) -> list[tuple[datetime, datetime]]:
    """Return the periods that run now, of everything that is held."""
    every = [span_at(live.anchor, live.zone, interval(hold.price), at) for hold in live.lasting(at)]
    return [span for span in every if span is not None]


def _ends(live: Agreement, at: datetime) -> list[datetime]:
    """Return the ends of the periods that run now and bring an invoice.

    They do where something is held, or where something that was held in them measured usage.
    """
    found = []
    for hold in live.holds:
        span = span_at(live.anchor, live.zone, interval(hold.price), at)
        since = min(span[0], at) if span and "meter" in hold.price else at
        if span is not None and hold.lasts(since):
            found.append(span[1])
    return found


def _last(live: Agreement, hold: Hold) -> bool:
    """Say whether a hold was ended by the last pause."""
    return hold.until == max(h.until for h in live.holds if h.why == PAUSED and h.until)


_Deed = Callable[[Life, Agreement, Mapping[str, str], datetime, int], None]
# ruff: noqa: SLF001 - the table is the class's own
_DEEDS: Mapping[str, _Deed] = {
    "change": Life._change,
    "drop": Life._drop,
    "pause": Life._pause,
    "resume": Life._resume,
    "cancel": Life._cancel,
    "reactivate": Life._reactivate,
    "add_on": Life._add_on,
    "charge": Life._charge,
    "agree": Life._agree,
    "migrate": Life._migrate,
}
