"""More clients than a server can serve, all sending as fast as they can: raw HTTP over asyncio.

Each connection sends a batch and waits for its answer. A batch that was turned away with 503 is
sent again with the SAME ids half of the time, after a moment; otherwise it is given up, as a
caller does who cannot wait. What was acknowledged is what the test holds the server to.
"""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

PAUSE_SECONDS = 0.05
REPEATS = 0.5


@dataclass
class Flood:
    """What was sent and what was answered, by all connections together."""

    port: int
    key: str
    seed: str
    size: int
    padding: int
    acknowledged: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    told_when: int = 0
    sent_bytes: int = 0
    ending: bool = False

    async def run(self, connections: int) -> None:
        """Send on every connection until told to stop."""
        await asyncio.gather(*(self._client(number) for number in range(connections)))

    async def _client(self, number: int) -> None:
        chance, counter = Random(f"{self.seed}-{number}"), 0
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        ids: list[str] = []
        while not self.ending:
            if not ids:
                counter += 1
                ids = [f"{self.seed}-{number}-{counter}-{place}" for place in range(self.size)]
            status = await self._ask(reader, writer, self._request(ids))
            if status == 503:
                await asyncio.sleep(PAUSE_SECONDS)
            if status == 202:
                self.acknowledged.update(ids)
            if status != 503 or chance.random() > REPEATS:
                ids = []
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    def _request(self, ids: list[str]) -> bytes:
        events = [
            {
                "specversion": "1.0", "id": name, "source": "flood", "type": "ai.request",
                "subject": f"metered-{len(name) % 60}",
                "data": {"status": "succeeded", "model": "m" * self.padding},
            }
            for name in ids
        ]  # fmt: skip
        body = json.dumps(events).encode()
        head = (
            f"POST /v1/events HTTP/1.1\r\nhost: flood\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> int:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        writer.write(request)
        await writer.drain()
        self.sent_bytes += len(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        status = int(head[9:12])
        self.statuses[status] += 1
        if status == 503:
            self.waits.append(loop.time() - begin)
            self.told_when += b"\r\nretry-after: " in head
        return status
