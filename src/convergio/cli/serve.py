"""`convergio serve`: the HTTP API, in one or several processes on one port."""

import socket
from typing import Annotated

import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from convergio.cli import console
from convergio.cli.opening import settings
from convergio.infra import migrate
from convergio.kernel.errors import Invalid
from convergio.wiring import dsn, opened

app = console.command_app(
    "Serve the HTTP API. Every route but /healthz and /readyz needs an API key.",
    "convergio serve --port 8080 --processes 2",
)
_BACKLOG = 2048


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=1, max=65535)] = None,
    processes: Annotated[int, typer.Option(help="Server processes.", min=1, max=64)] = 1,
) -> None:
    """Serve until stopped; the schema is migrated first."""
    chosen = settings()
    where = (host or chosen.host, port or chosen.port)
    listening = listen(*where)
    with opened(chosen):
        migrate.upgrade(dsn(chosen))
    config = uvicorn.Config(
        "convergio.api.app:factory",
        factory=True,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        workers=processes,
        timeout_graceful_shutdown=20,
    )
    console.say(f"convergio: serving on http://{where[0]}:{where[1]}; stop with Ctrl-C")
    if processes == 1:
        uvicorn.Server(config).run(sockets=[listening])
    else:
        Multiprocess(config, sockets=[listening]).run()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises: Invalid naming the port when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        detail = f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
        raise Invalid(detail, code="port_in_use", field="--port") from None
    listening.set_inheritable(True)
    return listening
