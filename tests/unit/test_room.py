"""The bytes that a process holds of request bodies are bounded, and given back."""

import pytest

from convergio.api.room import Room
from convergio.kernel.errors import Unavailable


def test_a_body_that_does_not_fit_is_turned_away_and_takes_nothing() -> None:
    room = Room(100)
    assert room.take(60) == 60
    with pytest.raises(Unavailable) as caught:
        room.take(41)
    assert caught.value.code == "overloaded"
    assert room.taken == 60
    assert room.take(40) == 40


def test_what_is_given_back_may_be_taken_again() -> None:
    room = Room(100)
    for _ in range(3):
        room.give_back(room.take(100))
    assert room.taken == 0


def test_a_share_grows_with_its_body_and_never_shrinks_until_it_goes_back() -> None:
    room = Room(100)
    share = room.share(40)
    for size, taken in ((20, 40), (60, 60), (50, 60)):
        share.grow_to(size)
        assert room.taken == taken
    with pytest.raises(Unavailable):
        share.grow_to(101)
    share.give_back()
    share.give_back()
    assert room.taken == 0
