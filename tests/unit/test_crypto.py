"""The formats of keys and sealed fields: what opens, and that nothing else does."""

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from convergio.crypto import rules
from convergio.crypto.actions import open_keyring
from convergio.crypto.errors import BadKeyEncryptionKey, DamagedSeal, MissingKeyEncryptionKey
from convergio.crypto.model import Place
from convergio.infra.clock import VirtualClock
from convergio.kernel.errors import Invalid

SECRET = bytes(range(32))
NONCE = bytes(12)
PLACE = Place(UUID(int=1), "customer", "sealed_name", UUID(int=1))


def kek_text(value: int) -> str:
    return base64.b64encode(bytes([value]) * 32).decode()


def opened(sealed: bytes) -> str:
    rules.key_version(sealed)
    return rules.open_text(SECRET, PLACE, sealed)


def sealed_at(place: Place, text: str = "Ada Lovelace") -> bytes:
    return rules.seal_text(SECRET, 1, os.urandom(12), place, text)


@pytest.mark.parametrize("text", ["", "Ada Lovelace", "株式会社\n🚀", "x" * 100_000])
def test_a_sealed_text_opens_to_itself_and_does_not_hold_it(text: str) -> None:
    sealed = sealed_at(PLACE, text)
    assert rules.open_text(SECRET, PLACE, sealed) == text
    assert rules.key_version(sealed) == 1
    assert not text or text.encode() not in sealed


@pytest.mark.parametrize(
    "other",
    [
        replace(PLACE, owner=UUID(int=2)),
        replace(PLACE, owner=None),
        replace(PLACE, table="invoice"),
        replace(PLACE, column="sealed_email"),
        replace(PLACE, row=UUID(int=2)),
        replace(PLACE, row="1"),
        replace(PLACE, table="customers", column="ealed_name"),
    ],
)
def test_cry_01_a_field_that_was_moved_does_not_open(other: Place) -> None:
    with pytest.raises(DamagedSeal) as caught:
        rules.open_text(SECRET, other, sealed_at(PLACE))
    assert caught.value.code == "sealed_field_damaged"
    assert "Ada" not in repr(caught.value)


def test_cry_02_no_single_flipped_bit_anywhere_opens() -> None:
    sealed = sealed_at(PLACE)
    for place in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[place // 8] ^= 1 << place % 8
        with pytest.raises(DamagedSeal):
            opened(bytes(altered))


@pytest.mark.parametrize("size", [0, 1, 5, 16, 17, 32])
def test_a_cut_field_is_damaged_and_no_crash(size: int) -> None:
    with pytest.raises(DamagedSeal):
        rules.key_version(sealed_at(PLACE)[:size])


def test_a_lone_surrogate_is_refused_without_showing_the_text() -> None:
    with pytest.raises(Invalid) as caught:
        rules.seal_text(SECRET, 1, NONCE, PLACE, "secret \ud800")
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_associated_parts_cannot_be_shifted_into_each_other() -> None:
    assert rules.associated("ab", "c") != rules.associated("a", "bc")
    assert rules.associated("a", "") != rules.associated("", "a")


def test_a_wrapped_key_opens_only_for_its_owner_version_and_kek() -> None:
    kek, other = rules.parse_keks(f"{kek_text(1)},{kek_text(2)}")
    wrapped = rules.wrap(kek, UUID(int=1), 1, secret=SECRET, nonce=NONCE)
    assert rules.unwrap(kek, wrapped) == SECRET
    for damaged in (
        replace(wrapped, customer_id=UUID(int=2)),
        replace(wrapped, customer_id=None),
        replace(wrapped, key_version=2),
        replace(wrapped, kek_id="other"),
        replace(wrapped, wrapped=b"\x02" + wrapped.wrapped[1:]),
        replace(wrapped, wrapped=wrapped.wrapped[:-1]),
        replace(wrapped, wrapped=b""),
    ):
        with pytest.raises(DamagedSeal):
            rules.unwrap(kek, damaged)
    with pytest.raises(DamagedSeal):
        rules.unwrap(other, wrapped)


def test_no_secret_shows_in_a_repr() -> None:
    (kek,) = rules.parse_keks(kek_text(1))
    wrapped = rules.wrap(kek, uuid4(), 1, secret=SECRET, nonce=NONCE)
    assert repr(kek.secret)[2:20] not in repr(kek)
    assert repr(wrapped.wrapped)[2:20] not in repr(wrapped)


def test_the_first_kek_is_the_newest_and_all_of_them_are_found_by_id_or_fingerprint() -> None:
    keks = rules.parse_keks(f"2026:{kek_text(2)}, {kek_text(1)}")
    assert keks[0].kek_id == "2026"
    assert keks[1].kek_id == keks[1].fingerprint
    for kek in keks:
        assert rules.find_kek(keks, kek.kek_id) is kek
        assert rules.find_kek(keks, kek.fingerprint) is kek


def test_a_missing_kek_is_named_with_the_mend() -> None:
    with pytest.raises(MissingKeyEncryptionKey, match="'2019' is not configured"):
        rules.find_kek(rules.parse_keks(kek_text(1)), "2019")


@pytest.mark.parametrize(
    "text",
    [
        "", "short", kek_text(1)[:-4], f"{kek_text(1)},", f"{kek_text(1)},{kek_text(1)}",
        f"a:{kek_text(1)},a:{kek_text(2)}", f"no spaces:{kek_text(1)}", f":{kek_text(1)}",
        "A" * 44, f"a:{kek_text(1)},b:{kek_text(1)}", "clé", kek_text(1).replace("=", "") + "!",
    ],
)  # fmt: skip
def test_a_kek_that_is_not_32_bytes_of_base64_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(BadKeyEncryptionKey) as caught:
        rules.parse_keks(text)
    assert caught.value.field == "CONVERGIO_KEK"
    assert not text or text not in str(caught.value)


def test_cry_07_a_blind_index_is_equal_for_equal_addresses_only() -> None:
    index = rules.blind_index(SECRET, "sealed_email", "ada@example.com")
    composed, decomposed = "zo\u00eb@example.com", "zoe\u0308@EXAMPLE.com"
    assert len(index) == 32
    assert index == rules.blind_index(SECRET, "sealed_email", " Ada@EXAMPLE.com ")
    assert rules.blind_index(SECRET, "c", composed) == rules.blind_index(SECRET, "c", decomposed)
    assert index != rules.blind_index(SECRET, "sealed_email", "ada@example.org")


def test_cry_12_a_blind_index_needs_its_key_and_differs_between_columns() -> None:
    index = rules.blind_index(SECRET, "sealed_email", "ada@example.com")
    assert index != rules.blind_index(bytes(32), "sealed_email", "ada@example.com")
    assert index != rules.blind_index(SECRET, "sealed_name", "ada@example.com")


def test_cry_06_a_hundred_thousand_seals_under_one_key_repeat_no_nonce() -> None:
    nonces = {sealed_at(PLACE, "")[5:17] for _ in range(100_000)}
    assert len(nonces) == 100_000


def test_a_missing_key_file_is_made_once_for_its_owner_only(tmp_path: Path, now: datetime) -> None:
    file, clock = tmp_path / "home" / "kek", VirtualClock(now)
    first = open_keyring(kek=None, file=file, clock=clock)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["kek"]
    again = open_keyring(kek=None, file=file, clock=clock)
    assert again.keks == first.keks
    assert repr(first) == f"Keyring({first.keks[0].kek_id})"


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path, now: datetime) -> None:
    def start(_: int) -> str:
        return open_keyring(kek=None, file=tmp_path / "kek", clock=VirtualClock(now)).keks[0].kek_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(32)))) == 1


def test_the_variable_wins_over_the_file_and_makes_none(tmp_path: Path, now: datetime) -> None:
    file = tmp_path / "kek"
    keyring = open_keyring(kek=f"a:{kek_text(1)}", file=file, clock=VirtualClock(now))
    assert keyring.keks[0].kek_id == "a"
    assert not file.exists()


def test_an_empty_variable_is_a_lost_secret_and_no_reason_for_a_new_one(
    tmp_path: Path, now: datetime
) -> None:
    with pytest.raises(BadKeyEncryptionKey):
        open_keyring(kek="", file=tmp_path / "kek", clock=VirtualClock(now))
    assert not (tmp_path / "kek").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_file_that_others_can_read_is_refused(
    tmp_path: Path, now: datetime, mode: int
) -> None:
    file = tmp_path / "kek"
    open_keyring(kek=None, file=file, clock=VirtualClock(now))
    file.chmod(mode)
    with pytest.raises(BadKeyEncryptionKey, match="chmod 600"):
        open_keyring(kek=None, file=file, clock=VirtualClock(now))


def test_a_key_file_that_is_a_link_a_folder_or_garbage_is_refused(
    tmp_path: Path, now: datetime
) -> None:
    clock, target = VirtualClock(now), tmp_path / "target"
    open_keyring(kek=None, file=target, clock=clock)
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "garbage").write_bytes(b"\xff\x00 not a key")
    (tmp_path / "garbage").chmod(0o600)
    for name in ("link", "dangling", "folder", "garbage", "target/below"):
        with pytest.raises(BadKeyEncryptionKey) as caught:
            open_keyring(kek=None, file=tmp_path / name, clock=clock)
        assert caught.value.__cause__ is None
    assert not (tmp_path / "nowhere").exists()
