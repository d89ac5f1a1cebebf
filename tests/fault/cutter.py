"""A proxy before Postgres that cuts a connection at its COMMIT, on one side or the other.

It listens on a Unix socket and reads the frontend protocol just enough to know which statements a
transaction ran and when COMMIT comes (PostgreSQL documentation, "Message Formats"). An armed cut
falls on the next COMMIT of a transaction that wrote what the test is about:

- `before`: COMMIT never reaches the server, so the transaction is rolled back;
- `sent`: COMMIT reaches it, and the connection is gone before it can answer;
- `answered`: the server has answered, and the answer never reaches the application.

In all three the application knows only that the connection is lost.
"""

import asyncio
import socket
import struct
import threading
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path

SIDES = ("before", "sent", "answered")
KINDS = {
    "events": (b"COPY usage_event", b"INSERT INTO usage_event"),
    "authorize": (b"COPY reservation", b"INSERT INTO reservation"),
    "settle": (b"UPDATE reservation",),
}
_HEAD = struct.Struct("!cI")
_PART = 262_144
_IDLE = b"Z\x00\x00\x00\x05I"  # ReadyForQuery, outside of any transaction


class Cutter:
    """The proxy, in a thread of its own."""

    def __init__(self, folder: Path, server: Path) -> None:
        """Listen in a folder for a server whose socket is given."""
        self.folder = folder
        self.cuts: Counter[str] = Counter()
        self._server = server
        self._armed: deque[str] = deque()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cutter", daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def arm(self, side: str) -> None:
        """Cut one more COMMIT, on this side."""
        self._armed.append(side)

    @property
    def total(self) -> int:
        """How many were cut so far."""
        return sum(self.cuts[side] for side in SIDES)

    def close(self) -> None:
        """Stop, and drop every connection."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        path = str(self.folder / self._server.name)
        listening = self._loop.run_until_complete(asyncio.start_unix_server(self._serve, path))
        self._ready.set()
        self._loop.run_forever()
        listening.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            there, thither = await asyncio.open_unix_connection(str(self._server))
            session = _Session(self, reader, writer, there, thither)
            await session.run()
        writer.close()

    def claim(self, kind: str) -> str | None:
        """Return the side on which this COMMIT is cut, if it is."""
        if not self._armed:
            return None
        side = self._armed.popleft()
        self.cuts[side] += 1
        self.cuts[kind] += 1
        return side


class _Session:
    """One connection of the application, and the one to the server that stands behind it."""

    def __init__(
        self,
        cutter: Cutter,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        thither: asyncio.StreamWriter,
    ) -> None:
        self._cutter = cutter
        self._reader, self._writer = reader, writer
        self._there, self._thither = there, thither
        self._prepared: dict[bytes, bytes] = {}
        self._kind: str | None = None
        self._mute = False
        self._answered = asyncio.Event()

    async def run(self) -> None:
        """Pass on both ways until one side ends or the cut comes."""
        back = asyncio.ensure_future(self._back())
        try:
            await self._forth()
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for one in (self._writer, self._thither):
                one.close()

    async def _back(self) -> None:
        while part := await self._there.read(_PART):
            if self._mute:
                if part.endswith(_IDLE):
                    self._answered.set()
                    return
                continue
            self._writer.write(part)
            await self._writer.drain()
        self._writer.close()

    async def _forth(self) -> None:
        size = await self._reader.readexactly(4)
        self._thither.write(size + await self._reader.readexactly(int.from_bytes(size) - 4))
        side = None
        while True:
            head = await self._reader.readexactly(_HEAD.size)
            kind, length = _HEAD.unpack(head)
            body = await self._reader.readexactly(length - 4)
            if self._commits(kind, body) and self._kind is not None:
                side = self._cutter.claim(self._kind)
            if side == "before":
                self._mute = True
                return
            if side is not None and kind in {b"Q", b"S"}:  # the server answers after one of these
                await self._cut(side, head + body)
                return
            self._thither.write(head + body)
            await self._thither.drain()

    def _commits(self, kind: bytes, body: bytes) -> bool:
        """Note what a message is about; say whether it runs a COMMIT."""
        text = b""
        if kind == b"P":
            name, _, query = body.partition(b"\0")
            self._prepared[name] = query.partition(b"\0")[0]
        elif kind == b"B":
            text = self._prepared.get(body.split(b"\0", 2)[1], b"")
        elif kind == b"Q":
            text = body
        self._kind = None if text.startswith(b"BEGIN") else _about(text) or self._kind
        return text.startswith(b"COMMIT")

    async def _cut(self, side: str, message: bytes) -> None:
        self._mute = True  # no answer passes any more
        self._thither.write(message)
        await self._thither.drain()
        if side == "answered":
            await asyncio.wait_for(self._answered.wait(), 30)
            return
        with suppress(OSError):
            self._thither.get_extra_info("socket").shutdown(socket.SHUT_RD)


def _about(text: bytes) -> str | None:
    return next((kind for kind, words in KINDS.items() if any(w in text for w in words)), None)
