"""`convergio keys`: wrap what is sealed with a new key-encryption key, so that the old one may go.

The data keys themselves stay, and so does everything that they sealed: only what wraps them is
made anew. SECURITY.md says when, and in which order the processes get the new key.
"""

from functools import partial
from typing import Final

from convergio.cli import console
from convergio.cli.opening import opened
from convergio.crypto.actions import rewrap as rewrap_some

EXAMPLE: Final = "convergio keys rewrap"

app = console.command_app("Change the key-encryption key.", EXAMPLE)


@app.callback()
def keys() -> None:
    """Hold the commands together."""


@app.command(epilog=f"Example: CONVERGIO_KEK=2026:$NEW,2025:$OLD {EXAMPLE}")
def rewrap(*, as_json: console.Json = False) -> None:
    """Wrap every data key with the first key of CONVERGIO_KEK; safe to stop and to run again.

    Every process must know that key by then, or one goes on to make data keys under an older one.
    """
    wrapped = 0
    with opened(example=False) as product, console.progress("Wrapping keys", None) as advance:
        newest, *older = product.keyring.keks
        while some := product.database.insist(partial(rewrap_some, keyring=product.keyring)):
            wrapped += some
            advance(some)
    value = {"rewrapped": wrapped, "key": newest.kek_id, "unused": [one.kek_id for one in older]}
    text = f"{wrapped} keys were wrapped anew; all are under {newest.kek_id}"
    if older:
        text += f", and {', '.join(one.kek_id for one in older)} may go from CONVERGIO_KEK"
    console.emit(value, as_json=as_json, text=text)
