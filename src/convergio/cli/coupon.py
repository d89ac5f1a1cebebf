"""`convergio coupon`: offer coupons, redeem them for customers, see who redeemed what."""

from typing import Annotated, Any, Final

import typer

from convergio.billing import redeeming
from convergio.cli import console
from convergio.cli.opening import done, opened
from convergio.customers import actions as customers
from convergio.discounts import actions, describing
from convergio.discounts.model import Duration, Terms
from convergio.infra.ids import parse_typeid
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money, parse_rate
from convergio.kernel.periods import parse_instant
from convergio.payments import actions as payments

EXAMPLE: Final = "convergio coupon create WELCOME-20 --percent 20 --duration repeating --periods 3"

app = console.command_app("Offer and redeem coupons.", EXAMPLE)

Code = Annotated[str, typer.Argument(help="The coupon's code.")]
KeyOrId = Annotated[str, typer.Argument(metavar="KEY|ID", help="The customer's key or cus_... id.")]


@app.command(epilog=f"Example: {EXAMPLE}")
def create(
    code: Annotated[str, typer.Argument(help="Capital letters, digits, - and _.")],
    *,
    percent: Annotated[str | None, typer.Option(help="Percentage off.")] = None,
    amount: Annotated[str | None, typer.Option(help="Amount off each period.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of the amount, such as usd.")] = None,
    duration: Annotated[Duration, typer.Option(help="How long it counts.")] = Duration.ONCE,
    periods: Annotated[int | None, typer.Option(help="How many, of a repeating one.")] = None,
    name: Annotated[str | None, typer.Option(help="What it is called; default the code.")] = None,
    plan: Annotated[list[str] | None, typer.Option(help="Only for this plan; repeat.")] = None,
    price: Annotated[list[str] | None, typer.Option(help="Only for this price; repeat.")] = None,
    redeem_by: Annotated[str | None, typer.Option(help="RFC 3339; the last instant.")] = None,
    limit: Annotated[int | None, typer.Option(help="How often in all.")] = None,
    limit_customer: Annotated[int, typer.Option(help="How often a customer.")] = 1,
    as_json: console.Json = False,
) -> None:
    """Offer a coupon: a percentage of lines, or an amount of each period, before tax."""
    money = None
    if (amount is None) != (currency is None):
        detail = "write an amount together with its currency"
        raise Invalid(detail, code="percent_or_amount", field="--currency")
    if amount is not None and currency is not None:
        money = Money.parse(amount, currency.lower(), field="--amount")
    terms = Terms(
        code=code,
        name=name or code,
        percent=None if percent is None else parse_rate(percent, field="--percent"),
        amount=None if money is None else money.minor,
        currency=None if money is None else money.currency,
        duration=duration,
        periods=periods,
        plans=tuple(plan or ()),
        prices=tuple(price or ()),
        redeem_by=None if redeem_by is None else parse_instant(redeem_by, field="--redeem-by"),
        limit_in_all=limit,
        limit_customer=limit_customer,
    )
    coupon = done(lambda product, tx: actions.create(tx, terms, now=product.clock.now()))
    shown = describing.coupon_value(coupon)
    console.emit(shown, as_json=as_json, text=_words(shown))


@app.command("list", epilog="Example: convergio coupon list --json")
def list_(
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Coupons a page.")] = 100,
    as_json: console.Json = False,
) -> None:
    """List the coupons in the order of their making, and how often each was redeemed."""
    start = None if after is None else parse_typeid(describing.COUPON, after)
    with opened() as product, product.database.transaction() as tx:
        found = [describing.coupon_value(one) for one in actions.page(tx, after=start, limit=limit)]
    grid = console.table("code", "off", "duration", "redeemed", "state")
    for one in found:
        most = "" if one["limit_in_all"] is None else f" of {one['limit_in_all']}"
        state = "archived" if one["archived"] else "on offer"
        grid.add_row(one["code"], _off(one), _lasts(one), f"{one['redeemed']}{most}", state)
    following = found[-1]["id"] if len(found) == limit else None
    console.emit({"coupons": found, "next": following}, as_json=as_json, text=grid)


@app.command(epilog="Example: convergio coupon redeem acme WELCOME-20")
def redeem(customer: KeyOrId, code: Code, as_json: console.Json = False) -> None:
    """Redeem a code for a customer, from now on, or from the next period if this one is billed."""
    found = done(
        lambda product, tx: redeeming.redeem(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            code=code,
            now=product.clock.now(),
            can_pay=payments.payable,
        )
    )
    shown = describing.redemption_value(found)
    console.emit(shown, as_json=as_json, text=_pinned(shown))


@app.command(epilog="Example: convergio coupon redeemed acme")
def redeemed(customer: KeyOrId, as_json: console.Json = False) -> None:
    """Show what a customer redeemed, and for which of its periods it counts."""
    with opened() as product, product.database.transaction() as tx:
        customer_id = customers.find(tx, customer).customer_id
        found = [describing.redemption_value(one) for one in actions.redemptions(tx, customer_id)]
    text = "\n".join(_pinned(one) for one in found) or "nothing was redeemed"
    console.emit({"redemptions": found}, as_json=as_json, text=text)


@app.command(epilog="Example: convergio coupon archive WELCOME-20")
def archive(code: Code, as_json: console.Json = False) -> None:
    """Take a coupon off offer; what was redeemed goes on."""
    coupon = done(lambda product, tx: actions.archive(tx, code, now=product.clock.now()))
    shown = describing.coupon_value(coupon)
    console.emit(shown, as_json=as_json, text=f"{code} is off offer")


def _off(one: dict[str, Any]) -> str:
    return f"{one['percent']}%" if one["percent"] else f"{one['amount']} {one['currency']}"


def _lasts(one: dict[str, Any]) -> str:
    return f"{one['periods']} periods" if one["periods"] else one["duration"]


def _words(one: dict[str, Any]) -> str:
    return f"{one['code']}: {_off(one)} off, {_lasts(one)}"


def _pinned(one: dict[str, Any]) -> str:
    first, last = one["first_period"], one["last_period"]
    until = "on" if last is None else f"to {last}"
    return f"{one['code']}: {_off(one)} off, {one['interval']} periods from {first} {until}"
