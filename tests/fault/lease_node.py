"""A gateway node in a process of its own: it decides by leases and writes down what it did.

Each decision is in the journal, with one write that outlives a kill -9, before it is reported; so
the journal is what really happened and the server's count can only be behind it.
"""

import os
import signal
import sys
import time
from pathlib import Path
from threading import Event

import httpx

from convergio_client.lease import Lease
from convergio_client.protocol import Call, Reply, Silence

CUSTOMERS = 60
WANTED = 30
PAUSE_SECONDS = 0.002
FULL_SECONDS = 0.3


def main(port: str, key: str, journal: str, first: str) -> None:
    """Press on one customer after the other until told to stop."""
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    written = os.open(Path(journal), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    base = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=base, headers=headers, timeout=30) as client:

        def send(call: Call) -> Reply | Silence:
            try:
                found = client.post(call.path, content=call.body)
            except httpx.HTTPError as error:
                return Silence(type(error).__name__)
            return Reply(found.status_code, found.content)

        for number in range(int(first), CUSTOMERS):
            customer = f"pool-{number:02d}"
            with Lease(send, customer, "questions", wanted=WANTED) as lease:
                press(lease, f"{customer}\n".encode(), written, stop)
            if stop.is_set():
                return
        stop.wait()


def press(lease: Lease, line: bytes, journal: int, stop: Event) -> None:
    """Let through whatever the lease allows, until the quota is full."""
    full_since = None
    while not stop.is_set():
        if lease.take():
            os.write(journal, line)
            lease.done()
            full_since = None
        elif lease.denied is not None:
            full_since = full_since or time.monotonic()
            if time.monotonic() - full_since > FULL_SECONDS:
                return
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
