"""A process that tracks through a spool until it is killed: what it was promised, it writes down.

`python -m tests.fault.spooler URL KEY SPOOL JOURNAL CUSTOMER SEED`. After `track` or `commit` has
returned, and not before, one line goes to the journal with a single write, which a kill -9 cannot
tear. Half the work is events, the rest are reservations that are asked for and committed.
"""

import os
import sys
from decimal import Decimal
from pathlib import Path
from random import Random

from convergio_client import ClientError, Convergio, Denied, Spool, SpoolFull

LEASE_SECONDS = 1.0
ROWS_MAX = 20_000


def main(*words: str) -> None:
    """Track until killed."""
    url, key, spool, journal, customer, seed = words
    chance = Random(seed)
    written = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    client = Convergio(
        url,
        key,
        source="fault",
        spool=Spool(Path(spool), lease_seconds=LEASE_SECONDS, rows_max=ROWS_MAX),
        timeout_seconds=5,
        patience_seconds=0.05,
    )
    while True:
        quantity = Decimal(chance.choice(["1", "2", "0.25", "3.000000001"]))
        try:
            if chance.random() < 0.9:
                name = client.track(customer, "ai.request", {"quantity": quantity})
                os.write(written, f"event {name} {quantity}\n".encode())
            else:
                permit = client.reserve(customer, "questions", 5)
                client.commit(permit, used=quantity)
                os.write(written, f"commit {permit.reservation} {quantity}\n".encode())
        except SpoolFull:
            os.write(written, b"full - 0\n")
        except Denied as error:
            os.write(written, f"denied {error.reason} 0\n".encode())
        except ClientError:
            os.write(written, b"unavailable - 0\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
