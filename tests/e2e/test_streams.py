"""Guarded streams on real web servers, with clients that stay and clients that leave."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Served, free_port

PARTS = 20
SERVERS = {
    "uvicorn": """
import asyncio, sys, uvicorn
from convergio_client import AsyncConvergio, ConvergioMiddleware

url, key, customer, port, spool = sys.argv[1:]

async def stream(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(20):
        await send({"type": "http.response.body", "body": b"part\\n", "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b"end\\n"})

app = ConvergioMiddleware(
    stream, AsyncConvergio(url, key, spool=spool), customer=lambda _: customer, meter="questions"
)
uvicorn.run(app, port=int(port), lifespan="off", log_level="warning")
""",
    "wsgiref": """
import sys, time
from wsgiref.simple_server import make_server
from convergio_client import Convergio, ConvergioWSGI

url, key, customer, port, spool = sys.argv[1:]

def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(20):
        yield b"part\\n"
        time.sleep(0.05)
    yield b"end\\n"

app = ConvergioWSGI(
    stream, Convergio(url, key, spool=spool), customer=lambda _: customer, meter="questions"
)
make_server("127.0.0.1", int(port), app).serve_forever()
""",
}


@contextmanager
def serving(name: str, served: Served, customer: str, folder: Path) -> Iterator[int]:
    """Run a web server with a guarded stream; yield its port."""
    port = free_port()
    words = [served.url, served.key, customer, str(port), str(folder / "usage.spool")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVERS[name], *words], stdout=log, stderr=log
        )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.parametrize("name", SERVERS)
def test_a_stream_counts_at_its_end_and_not_when_its_client_left(
    served: Served, tmp_path: Path, name: str
) -> None:
    customer = served.customer("free")
    with serving(name, served, customer, tmp_path) as port:
        with httpx.stream("GET", f"http://127.0.0.1:{port}/", timeout=30) as left:
            assert next(left.iter_bytes()).startswith(b"part")
        stayed = httpx.get(f"http://127.0.0.1:{port}/", timeout=30)
        assert stayed.text == "part\n" * PARTS + "end\n"
        settled = _settled(served, customer)
    assert settled == ("1", "0"), "one was counted, and nothing is held"


def _settled(served: Served, customer: str) -> tuple[str, str]:
    """Return what is used and reserved, when nothing is held any more or it takes too long."""
    headers = {"authorization": f"Bearer {served.key}"}
    asked = {"customer": customer, "meter": "questions"}
    for _ in range(100):
        told = httpx.get(f"{served.url}/v1/quota", params=asked, headers=headers).json()
        found = (told["used"], told["reserved"])
        if found == ("1", "0"):
            break
        time.sleep(0.1)
    return found
