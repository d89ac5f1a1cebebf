"""`convergio quota`: what is left and why not more, spend caps, leases whose node is gone."""

from typing import Annotated, Any
from uuid import UUID

import typer

from convergio.cli import console
from convergio.cli.opening import done, opened
from convergio.customers import actions as customers
from convergio.entitlements import leases, rules, spending
from convergio.entitlements.model import Lease
from convergio.infra.ids import parse_typeid, typeid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import quantity_text

PAGE_SIZE = 100
app = console.command_app(
    "Show quotas, set spend caps, and give up leases whose node is gone.",
    "convergio quota show acme --meter questions",
)
Key = Annotated[str, typer.Argument(help="The customer's key.")]


@app.command(epilog="Example: convergio quota show acme --meter questions --json")
def show(
    customer: Key,
    meter: Annotated[str, typer.Option(help="Key of the meter.")],
    *,
    as_json: console.Json = False,
) -> None:
    """Show a quota as it stands, and why the next unit would be denied."""
    with opened() as product:
        found = product.gate.quota(customer, meter, now=product.clock.now())
    value = {
        "customer": customer,
        "meter": meter,
        "limit": None if found.limit is None else quantity_text(found.limit),
        "used": quantity_text(found.used),
        "reserved": quantity_text(found.reserved),
        "remaining": None if found.remaining is None else quantity_text(found.remaining),
        "overage": None if found.overage is None else quantity_text(found.overage),
        "credit": quantity_text(found.credit),
        "resets_at": instant_text(found.resets_at),
        "access": found.access,
        "reason": found.reason,
        "spend_cap": _money(found.spend_cap),
        "spend": _money(found.spend),
    }
    lines = [f"{name:<10} {'-' if shown is None else shown}" for name, shown in value.items()]
    console.emit(value, as_json=as_json, text="\n".join(lines))


@app.command(epilog="Example: convergio quota cap acme 25.00")
def cap(
    customer: Key,
    amount: Annotated[str, typer.Argument(help="In major units, such as 25.00; none: no cap.")],
    *,
    as_json: console.Json = False,
) -> None:
    """Set what a customer's overage may come to in the current periods, or take the cap away."""
    wanted = None if amount == "none" else amount
    money = done(
        lambda product, tx: spending.set_cap(tx, customer, wanted, now=product.clock.now())
    )
    value = {"customer": customer, "spend_cap": _money(money)}
    console.emit(value, as_json=as_json, text=f"{customer}  {_money(money) or 'no cap'}")


@app.command("leases", epilog="Example: convergio quota leases --expired")
def list_leases(
    customer: Annotated[str | None, typer.Option(help="Only of this customer.")] = None,
    *,
    expired: Annotated[bool, typer.Option("--expired", help="Only whose node is late.")] = False,
    as_json: console.Json = False,
) -> None:
    """List open leases; an expired one blocks what it holds until it is settled or lost."""
    found: list[Lease] = []
    with opened() as product, product.database.snapshot() as tx:
        who = customers.find(tx, customer).customer_id if customer else None
        after = UUID(int=0), UUID(int=0)
        expired_by = product.clock.now() if expired else None
        while some := leases.page(
            tx, after=after, size=PAGE_SIZE, customer_id=who, expired_by=expired_by
        ):
            found += some
            after = some[-1].customer_id, some[-1].lease_id
        accounts = customers.get_many(tx, sorted({one.customer_id for one in found}))
    keys = {each: account.customer_key for each, account in accounts.items()}
    table = console.table("lease", "customer", "held", "expires at", right=("held",))
    for one in found:
        held = quantity_text(rules.held(one))
        table.add_row(
            typeid("lea", one.lease_id), keys[one.customer_id], held, instant_text(one.expires_at)
        )
    value = [_lease(one, keys[one.customer_id]) for one in found]
    console.emit(value, as_json=as_json, text=table)


@app.command(epilog="Example: convergio quota lost acme lea_01j8z6v3k9e5x8q2w4r6t8y0ab")
def lost(
    customer: Key,
    lease: Annotated[str, typer.Argument(help="The lease's id, lea_...")],
    *,
    as_json: console.Json = False,
) -> None:
    """Give back what an expired lease holds: its node is gone and will not report."""
    lease_id = parse_typeid("lea", lease)
    found = done(
        lambda product, tx: leases.declare_lost(tx, customer, lease_id, now=product.clock.now())
    )
    value = _lease(found, customer)
    console.emit(value, as_json=as_json, text=f"{value['lease']}  {found.state}")


def _money(found: Money | None) -> str | None:
    return None if found is None else f"{found.text()} {found.currency}"


def _lease(found: Lease, customer: str) -> dict[str, Any]:
    return {
        "lease": typeid("lea", found.lease_id),
        "customer": customer,
        "state": found.state,
        "granted": quantity_text(found.granted),
        "used": quantity_text(found.used),
        "held": quantity_text(rules.held(found)),
        "expires_at": instant_text(found.expires_at),
    }
