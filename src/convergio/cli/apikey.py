"""`convergio apikey`: create, list and revoke API keys.

`create` prints the key, and nothing ever can again: only a hash of it is kept.
"""

from datetime import datetime
from typing import Annotated, Any, Final

import typer

from convergio.cli import console
from convergio.cli.opening import done, opened
from convergio.customers import actions as customers
from convergio.identity import actions, rules
from convergio.identity.model import ApiKey, NewApiKey, Scope
from convergio.infra.db import Tx
from convergio.infra.ids import parse_typeid, typeid
from convergio.kernel.periods import instant_text, parse_instant
from convergio.wiring import App

EXAMPLE: Final = "convergio apikey create gateway --scope usage:write --scope quota:write"
_ID_PREFIX: Final = "key"

app = console.command_app("Create, list and revoke API keys.", EXAMPLE)

Scopes = Annotated[
    list[str], typer.Option("--scope", help=f"May be given again. One of: {', '.join(Scope)}.")
]


@app.command(epilog=f"Example: {EXAMPLE}")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Scopes,
    expires: Annotated[
        str | None, typer.Option(metavar="INSTANT", help="RFC 3339, as 2027-01-31T00:00:00Z.")
    ] = None,
    customer: Annotated[
        str | None, typer.Option(metavar="KEY|ID", help="Let the key see this customer only.")
    ] = None,
    as_json: console.Json = False,
) -> None:
    """Create a key and print it, this once."""
    expires_at = None if expires is None else parse_instant(expires, field="expires")

    def work(product: App, tx: Tx) -> tuple[NewApiKey, datetime]:
        now = product.clock.now()
        made = actions.create(
            tx,
            name=name,
            scopes=scope,
            now=now,
            expires_at=expires_at,
            customer_id=None if customer is None else customers.find(tx, customer).customer_id,
        )
        return made, now

    made, now = done(work)
    if not as_json:
        console.say("Keep this key now: it is not kept here and cannot be shown again.")
    value = {"key": made.secret} | shown(made.api_key, now=now)
    console.emit(value, as_json=as_json, text=made.secret)


@app.command("list", epilog="Example: convergio apikey list --json")
def list_(
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Keys a page.")] = 100,
    as_json: console.Json = False,
) -> None:
    """List keys, dead ones too, by prefix and last four characters."""
    start = None if after is None else parse_typeid(_ID_PREFIX, after)
    with opened() as product, product.database.transaction() as tx:
        now = product.clock.now()
        keys = [shown(key, now=now) for key in actions.page(tx, after=start, size_max=limit)]
    grid = console.table("id", "name", "key", "scopes", "status")
    for key in keys:
        grid.add_row(key["id"], key["name"], key["masked"], " ".join(key["scopes"]), key["status"])
    following = keys[-1]["id"] if len(keys) == limit else None
    console.emit({"keys": keys, "next": following}, as_json=as_json, text=grid)


@app.command(epilog="Example: convergio apikey revoke key_01jhn3k8m2f6v9x0a1b2c3d4e5")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key_... id, as listed.")],
    as_json: console.Json = False,
) -> None:
    """Revoke a key for ever; servers that hold it forget it within 30 seconds."""
    api_key_id = parse_typeid(_ID_PREFIX, key_id)

    def work(product: App, tx: Tx) -> dict[str, Any]:
        now = product.clock.now()
        return shown(actions.revoke(tx, api_key_id, now=now), now=now)

    value = done(work)
    console.emit(value, as_json=as_json, text=f"{value['id']}  {value['masked']}  revoked")


def shown(api_key: ApiKey, *, now: datetime) -> dict[str, Any]:
    """Return what may be shown of a key, as JSON shows it."""
    return {
        "id": typeid(_ID_PREFIX, api_key.api_key_id),
        "name": api_key.name,
        "masked": rules.masked(api_key),
        "scopes": api_key.scopes,
        "customer": None if api_key.customer_id is None else typeid("cus", api_key.customer_id),
        "status": rules.status(api_key, now=now),
        "created_at": instant_text(api_key.created_at),
        "expires_at": None if api_key.expires_at is None else instant_text(api_key.expires_at),
        "revoked_at": None if api_key.revoked_at is None else instant_text(api_key.revoked_at),
    }
