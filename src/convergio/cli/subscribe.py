"""`convergio subscribe`: put a customer on a plan at the prices that it sells today."""

from typing import Annotated, Any, Final

import typer

from convergio.cli import console
from convergio.cli.opening import done
from convergio.cli.preview import Preview, look
from convergio.customers import actions as customers
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import instant_text, parse_instant, zone
from convergio.subscriptions import actions, rules
from convergio.subscriptions.model import Subscription, Trial, TrialPolicy
from convergio.wiring import App

EXAMPLE: Final = "convergio subscribe acme pro --start 2025-01-31T15:00:00Z --timezone Europe/Rome"

app = console.command_app("Put a customer on a plan.", EXAMPLE)


@app.command()
def command(
    customer: Annotated[str, typer.Argument(help="The customer's key or cus_... id.")],
    plan: Annotated[str, typer.Argument(help="The plan's key, such as pro.")],
    *,
    start: Annotated[str | None, typer.Option(help="RFC 3339, now or in the past.")] = None,
    timezone: Annotated[str, typer.Option(help="IANA zone of the periods.")] = "UTC",
    seats: Annotated[str, typer.Option(help="How many, where a price is per seat.")] = "1",
    trial_days: Annotated[
        int | None, typer.Option(min=1, help="Free days before the first paid period.")
    ] = None,
    without_method: Annotated[
        TrialPolicy, typer.Option(help="What follows a trial where nobody can pay.")
    ] = TrialPolicy.ACTIVATE,
    fallback_plan: Annotated[
        str | None, typer.Option(help="With fall_back: the plan to fall to.")
    ] = None,
    by_calendar: Annotated[
        bool, typer.Option("--calendar", help="Periods begin with the calendar's month or year.")
    ] = False,
    preview: Preview = False,
    as_json: console.Json = False,
) -> None:
    """Subscribe a customer; the first period begins at the start (default: now)."""
    begin = None if start is None else parse_instant(start, field="--start")
    _check_zone(timezone)
    places = _seats(seats)
    trial = None if trial_days is None else Trial(trial_days, without_method, fallback_plan)

    def work(product: App, tx: Tx) -> Subscription:
        now = product.clock.now()
        customer_id = customers.find(tx, customer).customer_id
        ends = [one.canceled_at for one in actions.history(tx, customer_id) if one.canceled_at]
        return actions.create(
            tx,
            customer_id=customer_id,
            plan_key=plan,
            start=begin or max([now.replace(microsecond=0), *ends]),  # in one second with an end
            now=now,
            time_zone=timezone,
            seats=places,
            trial=trial,
            by_calendar=by_calendar,
        )

    if preview:
        look(customer, work, as_json=as_json)
        return
    shown = subscription(done(work))
    text = f"{shown['id']}  {customer} is on {plan} from {shown['start']}"
    console.emit(shown, as_json=as_json, text=text)


def subscription(made: Subscription) -> dict[str, Any]:
    """Return a subscription as JSON."""
    return {
        "id": typeid("sub", made.subscription_id),
        "customer": typeid("cus", made.customer_id),
        "plan": made.plan_key,
        "status": made.status,
        "start": instant_text(made.started_at),
        "time_zone": made.time_zone,
        "currency": made.currency,
    }


def _check_zone(text: str) -> None:
    try:
        zone(text)
    except Invalid as error:
        raise Invalid(error.detail, code=error.code, field="--timezone") from None


def _seats(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= rules.SEATS_MAX:
        return int(text[:9])
    detail = f"write a whole number from 1 to {rules.SEATS_MAX}"
    raise Invalid(detail, code="bad_seats", field="--seats")
