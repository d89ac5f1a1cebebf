"""`convergio worker`: run the scheduled work until stopped."""

from convergio.cli import console
from convergio.cli.loading import load
from convergio.cli.opening import opened

app = console.command_app(
    "Run the scheduled work: billing each hour, collection, expiry of reservations. "
    "Several workers share it; each piece is done once.",
    "convergio worker",
)


@app.command()
def run() -> None:
    """Work until the process is told to stop (Ctrl-C or SIGTERM)."""
    with opened() as product:
        console.say("convergio worker: running; stop with Ctrl-C")
        load("worker").run(product)
