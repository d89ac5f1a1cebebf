"""How many bytes of request bodies a process holds at once: beyond it, a sender is turned away.

The queue of events is bounded by their number; a body is in memory before its events are counted.
Without this, many slow senders of large bodies would fill the memory of an idle server.
"""

from typing import Final

from convergio.kernel.errors import Unavailable

SIZE_MAX: Final = 128 * 1024 * 1024


class Room:
    """Bytes that are taken, of so many. Used from the event loop only, so nothing is locked."""

    def __init__(self, size_max: int = SIZE_MAX) -> None:
        """Start empty."""
        self._size_max = size_max
        self.taken = 0

    def take(self, size: int) -> int:
        """Take so much, or nothing for less than nothing; return what was taken.

        Raises: Unavailable when there is not so much left: nothing was taken or done.
        """
        size = max(size, 0)
        if self.taken + size > self._size_max:
            detail = "the server is busy; send the same request again in a second"
            raise Unavailable(detail, code="overloaded")
        self.taken += size
        return size

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        self.taken -= size

    def share(self, size: int) -> "Share":
        """Return what one request takes, so much to begin with. Raises: Unavailable."""
        return Share(self, self.take(size))


class Share:
    """What one request has taken of a room: it grows with what has come in, and goes back once."""

    __slots__ = ("_held", "_room")

    def __init__(self, room: Room, held: int) -> None:
        """Begin with what was taken already."""
        self._room = room
        self._held = held

    def grow_to(self, size: int) -> None:
        """Take what is lacking to so much. Raises: Unavailable; what was taken stays."""
        self._held += self._room.take(size - self._held)

    def give_back(self) -> None:
        """Give back all of it."""
        self._room.give_back(self._held)
        self._held = 0
