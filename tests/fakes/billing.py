"""A billing server in memory, for tests of the client; tests/e2e holds it to the real one.

It counts an id once, holds and settles reservations, and misbehaves when told to.
"""

import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx

RESETS_AT = "2025-02-01T00:00:00Z"
Answer = Callable[[httpx.Request], httpx.Response | None]


@dataclass
class FakeBilling:
    """What it knows, and what it answers instead when `faults` has something."""

    customers: set[str] = field(default_factory=lambda: {"acme"})
    limit: Decimal = Decimal(50)
    events: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    held: dict[str, Decimal] = field(default_factory=dict)
    settled: dict[str, Decimal | None] = field(default_factory=dict)
    denial: tuple[int, str] | None = None
    faults: list[Answer] = field(default_factory=list)
    down: bool = False
    requests: list[httpx.Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def transport(self) -> httpx.MockTransport:
        """Where a client sends to."""
        return httpx.MockTransport(self.handle)

    @property
    def used(self) -> Decimal:
        """Everything that was counted."""
        return sum((n for n in self.settled.values() if n is not None), Decimal(0))

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        with self.lock:
            self.requests.append(request)
            if self.down:
                raise httpx.ConnectError("nobody listens", request=request)
            fault = self.faults.pop(0) if self.faults else None
            if fault is not None and (told := fault(request)) is not None:
                return told
            return self.work(request)

    def work(self, request: httpx.Request) -> httpx.Response:
        """Do what a request asks for."""
        if request.headers.get("authorization") != "Bearer key":
            return problem(401, "unauthenticated")
        match request.url.path.split("/")[2:]:
            case ["events"]:
                packed = request.headers.get("content-encoding") == "gzip"
                body = gzip.decompress(request.content) if packed else request.content
                return self._count(json.loads(body))
            case ["authorize"]:
                return self._authorize(json.loads(request.content))
            case ["reservations", name, kind]:
                return self._settle(name, kind, json.loads(request.content))
            case ["quota"]:
                return self._quota(dict(request.url.params))
            case _:
                return problem(404, "invalid")

    def _count(self, events: list[dict[str, Any]]) -> httpx.Response:
        counts = dict.fromkeys(("accepted", "duplicate", "conflict", "rejected"), 0)
        others = []
        for index, event in enumerate(events):
            verdict = self._verdict(event)
            counts[verdict["status"]] += 1
            if verdict["status"] != "accepted":
                others.append({"index": index, **verdict})
        status = 422 if counts["rejected"] == len(events) else 202
        return httpx.Response(status, json={**counts, "events": others})

    def _verdict(self, event: dict[str, Any]) -> dict[str, str]:
        if event["subject"] not in self.customers:
            return {"status": "rejected", "reason": "unknown_customer", "detail": "make it first"}
        known = self.events.setdefault((event["source"], event["id"]), event)
        if known is event:
            return {"status": "accepted"}
        return {"status": "duplicate" if known == event else "conflict", "reason": "other_payload"}

    def _authorize(self, body: dict[str, str]) -> httpx.Response:
        if body["customer"] not in self.customers:
            return denied(404, "unknown_customer")
        if self.denial is not None:
            return denied(*self.denial)
        quantity = Decimal(body["quantity"])
        if (name := f"rsv_{body['id']}") in self.held:
            return allowed(name)
        if self.used + sum(self.held.values()) + quantity > self.limit:
            return denied(429, "limit_reached")
        self.held[name] = quantity
        return allowed(name)

    def _settle(self, name: str, kind: str, body: dict[str, str]) -> httpx.Response:
        if name not in self.held and name not in self.settled:
            return problem(404, "unknown_reservation")
        wanted = Decimal(body["actual"]) if kind == "commit" else None
        if self.settled.get(name, wanted) != wanted:
            return problem(409, "committed")
        self.held.pop(name, None)
        self.settled[name] = wanted
        return httpx.Response(200, json={"reservation": name})

    def _quota(self, asked: dict[str, str]) -> httpx.Response:
        held = sum(self.held.values(), Decimal(0))
        left = self.limit - self.used - held
        numbers = {"limit": self.limit, "used": self.used, "reserved": held, "remaining": left}
        shown = {name: str(value) for name, value in numbers.items()}
        rest = {"included": None, "resets_at": RESETS_AT, "access": "full"}
        return httpx.Response(200, json={**asked, **shown, **rest})


def problem(status: int, code: str, **more: str) -> httpx.Response:
    """Return a problem document."""
    document = {"status": status, "code": code, "detail": "as told", **more}
    return httpx.Response(status, json=document)


def allowed(reservation: str) -> httpx.Response:
    """Return a permit."""
    told = {"allowed": True, "reservation": reservation, "expires_at": RESETS_AT}
    return httpx.Response(200, json=told)


def denied(status: int, reason: str) -> httpx.Response:
    """Return a denial."""
    document = {"status": status, "code": reason, "reason": reason, "allowed": False}
    headers = {"retry-after": "60"} if status == 429 else {}
    return httpx.Response(status, json={**document, "resets_at": RESETS_AT}, headers=headers)


def says(status: int, **headers: str) -> Answer:
    """Answer with a bare status, once."""
    return lambda _: httpx.Response(
        status, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def loses_the_answer(billing: FakeBilling) -> Answer:
    """Do the work, and let the connection die before the answer is read."""

    def answer(request: httpx.Request) -> httpx.Response:
        billing.work(request)
        raise httpx.ReadError("the connection was reset", request=request)

    return answer
