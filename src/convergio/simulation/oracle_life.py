"""The oracle's idea of a subscription: who had which price from when until when.

Written from RULES.md 3, 8, 10 and `docs/subscriptions.md`. A life is told what happened, in order,
and is told everything again from the first day whenever someone asks, so that nothing is carried
over from an earlier answer. What is due by itself (the end of a trial, a change or an end that
waits) happens at its own instant, whenever it is looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from convergio.simulation.oracle_calendar import span_at

Price = Mapping[str, Any]
Plans = Mapping[str, Mapping[str, Any]]
LONG_AGO = -1


@dataclass(slots=True)
class Hold:
    """A price that someone has, how many of it, and when; `made` is the fact that began it."""

    price: Price
    count: int
    since: datetime
    made: int
    until: datetime | None = None
    credited: bool = False
    why: str = ""
    ended: int = LONG_AGO

    def end(self, at: datetime, *, credited: bool, why: str, fact: int) -> None:
        """End it once."""
        self.until, self.credited, self.why, self.ended = max(at, self.since), credited, why, fact


@dataclass(slots=True)
class Agreement:
    """One subscription. `waiting` is a change to come: when, to which plan, how many seats."""

    number: int
    plan: str
    zone: str
    anchor: datetime
    seats: int
    state: str
    made: int
    policy: str = "activate"
    fallback: str | None = None
    holds: list[Hold] = field(default_factory=list)
    ends_at: datetime | None = None
    ended_at: datetime | None = None
    waiting: tuple[datetime, str, int] | None = None

    def open_holds(self) -> list[Hold]:
        """Return what has not ended."""
        return [hold for hold in self.holds if hold.until is None]


def fees(plan: Mapping[str, Any]) -> list[Price]:
    """Return the prices of a plan that are charged in advance."""
    return [price for price in plan["prices"] if "meter" not in price]


def is_free(plan: Mapping[str, Any]) -> bool:
    """Say whether a plan can never cost anything."""
    return not fees(plan) and all(p["charge"].get("unit") == "0" for p in plan["prices"])


def interval(price: Price) -> str:
    """Return how often a price is charged."""
    return str(price.get("interval", "month"))


class Life:
    """The subscriptions of one customer, as told."""

    def __init__(self, plans: Plans) -> None:
        """Begin with nothing; `plans` is the catalog file's, by key."""
        self.plans = plans
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
        elif verb == "subscribe":
            self._subscribe(words, at, fact)
        elif (live := self.live) is not None:
            self.pass_until(at, fact)
            live = self.live
            if live is not None:
                getattr(self, f"_{verb}")(live, words, at, fact)

    def pass_until(self, until: datetime, fact: int) -> None:
        """Let everything happen that is due by an instant, in its own order."""
        while (live := self.live) is not None:
            if live.state == "trialing" and live.anchor <= until:
                self._end_trial(live, fact)
            elif live.ends_at is not None and live.ends_at <= until:
                self._stop(live, live.ends_at, fact, credited=False, why="")
            elif live.waiting is not None and live.waiting[0] <= until:
                at, plan, seats = live.waiting
                live.waiting = None
                self._go_to(live, plan, seats, at, fact)
            else:
                return

    def _subscribe(self, words: Mapping[str, str], at: datetime, fact: int) -> None:
        start = datetime.fromisoformat(words["start"]) if "start" in words else at
        days = int(words.get("trial", "0"))
        self._begin(
            words["plan"],
            zone=words.get("zone", "UTC"),
            anchor=start + timedelta(days=days),
            seats=int(words.get("seats", "1")),
            state="trialing" if days else "active",
            fact=fact,
        )
        self.agreements[-1].policy = words.get("without", "activate")
        self.agreements[-1].fallback = words.get("fallback")

    def _begin(
        self, plan: str, *, zone: str, anchor: datetime, seats: int, state: str, fact: int
    ) -> None:
        made = Agreement(len(self.agreements), plan, zone, anchor, seats, state, fact)
        self.agreements.append(made)
        self._take(made, plan, seats, anchor, fact)

    def _take(self, live: Agreement, plan: str, seats: int, since: datetime, fact: int) -> None:
        for price in self.plans[plan]["prices"]:
            count = seats if price["charge"]["model"] == "seat" else 1
            live.holds.append(Hold(price, count, since, fact))
        live.plan, live.seats = plan, seats

    def _end_trial(self, live: Agreement, fact: int) -> None:
        live.state = "active"
        if self.payable or live.policy == "activate":
            return
        if live.policy == "pause":
            live.state, live.waiting = "paused", None
            for hold in live.open_holds():
                hold.end(live.anchor, credited=True, why="paused", fact=fact)
            return
        for hold in live.open_holds():
            hold.end(live.anchor, credited=True, why="", fact=fact)
        self._take(live, str(live.fallback), live.seats, live.anchor, fact)

    def _change(self, live: Agreement, words: Mapping[str, str], at: datetime, fact: int) -> None:
        plan = words.get("plan", live.plan)
        seats = int(words.get("seats", live.seats))
        later = "period_end" if plan == live.plan and seats < live.seats else "now"
        if words.get("when", later) == "period_end":
            live.waiting = (self._paid_until(live, at), plan, seats)
            return
        if plan != live.plan:
            live.waiting = None
        elif live.waiting is not None:
            live.waiting = (live.waiting[0], live.waiting[1], seats)
        self._go_to(live, plan, seats, at, fact)

    def _go_to(self, live: Agreement, plan: str, seats: int, at: datetime, fact: int) -> None:
        """Change at an instant: on the same anchor, or with new periods (RULES 10)."""
        why = f"plan changed to {plan}" if plan != live.plan else f"seats changed to {seats}"
        if live.state == "trialing":
            live.holds = []
            self._take(live, plan, seats, live.anchor, fact)
        elif plan != live.plan and self._opens_anew(live.plan, plan):
            waiting = live.waiting
            self._stop(live, at, fact, credited=True, why=why)
            self._begin(plan, zone=live.zone, anchor=at, seats=seats, state="active", fact=fact)
            self.agreements[-1].waiting = waiting
        elif plan != live.plan:
            for hold in live.open_holds():
                hold.end(at, credited=True, why=why, fact=fact)
            self._take(live, plan, seats, at, fact)
        else:
            for hold in live.open_holds():
                if hold.price["charge"]["model"] == "seat" and hold.count != seats:
                    hold.end(at, credited=True, why=why, fact=fact)
                    live.holds.append(Hold(hold.price, seats, at, fact))
            live.seats = seats

    def _opens_anew(self, old: str, new: str) -> bool:
        """Say whether a change goes from Free to paid, or to another interval of the fee."""
        if is_free(self.plans[old]):
            return not is_free(self.plans[new])
        before, after = ({interval(p) for p in fees(self.plans[one])} for one in (old, new))
        return bool(before and after and before != after)

    def _drop(self, live: Agreement, _: Mapping[str, str], __: datetime, ___: int) -> None:
        live.waiting = None

    def _pause(self, live: Agreement, _: Mapping[str, str], at: datetime, fact: int) -> None:
        live.state, live.waiting = "paused", None
        for hold in live.open_holds():
            hold.end(at, credited=True, why="paused", fact=fact)

    def _resume(self, live: Agreement, _: Mapping[str, str], at: datetime, fact: int) -> None:
        if not any(hold.until and hold.until > hold.since for hold in live.holds):
            live.state, live.ended_at = "canceled", at
            self._begin(
                live.plan, zone=live.zone, anchor=at, seats=live.seats, state="active", fact=fact
            )
        else:
            live.state = "active"
            self._take(live, live.plan, live.seats, at, fact)

    def _cancel(self, live: Agreement, words: Mapping[str, str], at: datetime, fact: int) -> None:
        if words.get("at") == "period_end":
            live.ends_at, live.waiting = self._paid_until(live, at), None
            return
        credited = words.get("credit") == "yes"
        self._stop(live, at, fact, credited=credited, why="canceled")

    def _reactivate(self, live: Agreement, _: Mapping[str, str], __: datetime, ___: int) -> None:
        live.ends_at = None

    def _stop(self, live: Agreement, at: datetime, fact: int, *, credited: bool, why: str) -> None:
        live.state, live.ended_at, live.waiting = "canceled", at, None
        for hold in live.open_holds():
            hold.end(at, credited=credited, why=why, fact=fact)

    def _paid_until(self, live: Agreement, at: datetime) -> datetime:
        """Return the last end of the periods that run now."""
        spans = [
            span_at(live.anchor, live.zone, interval(hold.price), at) for hold in live.open_holds()
        ]
        return max((span[1] for span in spans if span is not None), default=max(at, live.anchor))
