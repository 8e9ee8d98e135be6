"""A certificate and its key: replaced together, or not at all, wherever the process ends."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.x509 import CertificateAuthority, generate_tls_key
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError
from sfrl_secure.ids import parse_spiffe_id
from sfrl_secure.storage import tls_pair
from sfrl_secure.storage.files import SECRET_MODE
from sfrl_secure.storage.tls_pair import TlsPair, read_tls_pair, replace_tls_pair

HOUR = 3_600_000_000
NOW = SystemClock().now_us()
AUTHORITY = CertificateAuthority.create("clients", NOW - HOUR, NOW + HOUR)
NAME = parse_spiffe_id("spiffe://sfrl.example/participant/rover-1")


def made() -> TlsPair:
    key, spki = generate_tls_key()
    chain = AUTHORITY.issue_svid(NAME, spki, not_before_us=NOW - HOUR, not_after_us=NOW + HOUR, dns_names=())
    return TlsPair(key, chain)


PAIRS = [made() for _ in range(3)]


class Died(BaseException):
    """The process ends here."""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    replace_tls_pair(certificate, key, PAIRS[0])
    return certificate, key


def same(found: TlsPair, wanted: TlsPair) -> bool:
    return found.chain == wanted.chain and found.key.matches(wanted.key)


def test_the_new_pair_takes_the_place_of_the_old_one(files: tuple[Path, Path]) -> None:
    assert same(read_tls_pair(*files), PAIRS[0])
    replace_tls_pair(*files, PAIRS[1])
    assert same(read_tls_pair(*files), PAIRS[1])
    certificate, key = files
    assert key.stat().st_mode & 0o777 == SECRET_MODE
    assert sorted(each.name for each in certificate.parent.iterdir()) == ["tls.crt", "tls.key"]


@pytest.mark.parametrize("step", range(6))
def test_wherever_a_replacement_ends_one_whole_pair_is_read_and_the_next_one_takes_its_place(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The steps are two files written, the key renamed and synced, the certificate renamed and synced."""
    left = [0]

    def dying(inner):  # type: ignore[no-untyped-def]
        def act(*args, **named):  # type: ignore[no-untyped-def]
            if left[0] == 0:
                raise Died
            left[0] -= 1
            return inner(*args, **named)

        return act

    def replace_dying_after(steps: int, pair: TlsPair) -> None:
        left[0] = steps
        with monkeypatch.context() as patched:
            for name in ("write_atomically", "rename", "sync_folder"):
                patched.setattr(tls_pair, name, dying(getattr(tls_pair, name)))
            with pytest.raises(Died):
                replace_tls_pair(*files, pair)

    replace_dying_after(step, PAIRS[1])
    # Before the key took its place the old pair is in force; from then on the new one is.
    assert same(read_tls_pair(*files), PAIRS[0 if step <= 2 else 1])
    # The next one dies as well: where it first had to finish the other one's work, before its own key was in place.
    replace_dying_after(2 if step <= 2 else 4, PAIRS[2])
    assert same(read_tls_pair(*files), PAIRS[{3: 1, 4: 1, 5: 2}.get(step, 0)])
    replace_tls_pair(*files, PAIRS[2])
    assert same(read_tls_pair(*files), PAIRS[2])


def test_whoever_reads_meanwhile_finds_one_whole_pair(files: tuple[Path, Path]) -> None:
    stopping = threading.Event()
    problems: list[BaseException] = []

    def read_on() -> None:
        while not stopping.is_set():
            try:
                found = read_tls_pair(*files)
            except MalformedError as error:
                problems.append(error)
                return
            if not any(same(found, pair) for pair in PAIRS):
                problems.append(AssertionError("another pair"))

    readers = [threading.Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(60):
        replace_tls_pair(*files, PAIRS[turn % 3])
    stopping.set()
    for reader in readers:
        reader.join()
    assert problems == []


def test_a_key_of_another_certificate_is_neither_written_nor_read(files: tuple[Path, Path]) -> None:
    certificate, key = files
    with pytest.raises(MalformedError):
        replace_tls_pair(certificate, key, TlsPair(PAIRS[1].key, PAIRS[2].chain))
    assert same(read_tls_pair(certificate, key), PAIRS[0])
    certificate.write_bytes(PAIRS[1].chain)
    with pytest.raises(MalformedError, match=r"tls\.key is not that of the certificate .*tls\.crt"):
        read_tls_pair(certificate, key)
    # A certificate that waits for another key is nobody's.
    certificate.with_name("tls.crt.next").write_bytes(PAIRS[2].chain)
    with pytest.raises(MalformedError):
        read_tls_pair(certificate, key)


def test_missing_files_and_open_keys_are_refused(files: tuple[Path, Path]) -> None:
    certificate, key = files
    key.chmod(0o640)
    with pytest.raises(DeniedError):
        read_tls_pair(certificate, key)
    key.chmod(SECRET_MODE)
    certificate.unlink()
    with pytest.raises(NotFoundError):
        read_tls_pair(certificate, key)
