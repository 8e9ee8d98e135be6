"""Bundles: a signed update as a file, read in the order header, length, digest, form."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulator import Simulator

from sfrl_secure.errors import DigestError, MalformedError, NotFoundError, PayloadError, UncertainStateError
from sfrl_secure.governance.statements import UpdateStatement
from sfrl_secure.ids import sha256
from sfrl_secure.limits import PAYLOAD_BYTES_MAX, UPDATE_HEADER_BYTES_MAX
from sfrl_secure.participant.bundles import MAGIC, is_bundle, open_bundle, write_bundle
from sfrl_secure.participant.sending import SignedUpdate
from sfrl_secure.rpc.sources import FileSource
from sfrl_secure.sparse.encode import EncodedUpdate, encode_agreed, encode_dense, encode_update
from sfrl_secure.sparse.mask import decode_mask, encode_mask
from sfrl_secure.wire.entries import encode_envelope

COORDINATES = 400_000


def encoded(support: str = "free") -> EncodedUpdate:
    """An update of four leaves: 200,000 values, or as many as there are coordinates."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=COORDINATES).astype(np.float32)
    kept = np.flatnonzero(rng.random(COORDINATES) < 0.5).astype(np.int64)
    if support == "dense":
        return encode_dense(values, value_type="packed", grid_exponent=16, rng=rng)
    if support == "agreed":
        mask = decode_mask(encode_mask(COORDINATES, kept), COORDINATES)
        return encode_agreed(mask, values[kept], value_type="sign", grid_exponent=16, rng=rng)
    return encode_update(COORDINATES, kept, values[kept], value_type="int8", grid_exponent=16, rng=rng)


def signed(sim: Simulator, update: EncodedUpdate, payload: bytes | None = None, **changes: object) -> SignedUpdate:
    """The update, or another payload in its name, signed by rover-1."""
    sent = update.payload if payload is None else payload
    envelope, statement, _ = sim.update(
        "rover-1", payload=sent, support=update.support, value_type=update.value_type,
        **{"nonzeros": update.nonzeros, "payload_root": update.root, **changes},
    )  # fmt: skip
    return SignedUpdate(statement, envelope, sent)


@pytest.mark.parametrize("support", ["free", "agreed", "dense"])
def test_what_is_packed_is_read_back_and_holds(sim: Simulator, tmp_path: Path, support: str) -> None:
    sim.open_round()
    packed, path = signed(sim, update := encoded(support)), tmp_path / "a.bundle"
    write_bundle(path, packed)
    assert is_bundle(path)
    assert path.stat().st_mode & 0o777 == 0o600
    told: list[tuple[int, int]] = []
    with open_bundle(path) as bundle:
        assert (bundle.envelope, bundle.update) == (packed.envelope, packed.update)
        assert bundle.payload.read(0, bundle.payload.size) == update.payload
        assert bundle.signed.payload is bundle.payload
        preamble = bundle.check_payload(lambda *now: told.append(now))
        assert (preamble.coordinates, preamble.nonzeros) == (COORDINATES, update.nonzeros)
    assert told[-1] == (len(update.payload), len(update.payload))
    raw = encode_envelope(packed.envelope)
    assert path.read_bytes() == MAGIC + len(raw).to_bytes(4, "little") + raw + update.payload


def test_a_payload_in_a_file_is_packed_too(sim: Simulator, tmp_path: Path) -> None:
    sim.open_round()
    (tmp_path / "payload").write_bytes((update := encoded()).payload)
    with FileSource(tmp_path / "payload") as source:
        write_bundle(tmp_path / "a.bundle", replace(signed(sim, update), payload=source))
    with open_bundle(tmp_path / "a.bundle") as bundle:
        bundle.check_payload()


def test_no_bundle_is_written_over_another_or_with_another_length(sim: Simulator, tmp_path: Path) -> None:
    sim.open_round()
    packed, path = signed(sim, encoded()), tmp_path / "a.bundle"
    write_bundle(path, packed)
    before = path.read_bytes()
    with pytest.raises(UncertainStateError):
        write_bundle(path, packed)
    assert path.read_bytes() == before
    with pytest.raises(MalformedError, match="ends before"):
        write_bundle(tmp_path / "b.bundle", replace(packed, payload=b"short"))
    assert not (tmp_path / "b.bundle").exists()


def test_every_cut_and_every_longer_file_is_no_bundle(sim: Simulator, tmp_path: Path) -> None:
    sim.open_round()
    envelope, update, payload = sim.update("rover-1")
    write_bundle(tmp_path / "whole", SignedUpdate(update, envelope, payload))
    raw, path = (tmp_path / "whole").read_bytes(), tmp_path / "cut"
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(MalformedError):
            open_bundle(path)
    path.write_bytes(raw + b"\0")
    with pytest.raises(MalformedError, match="more than its payload"):
        open_bundle(path)


def test_lengths_are_bounded_before_anything_is_read_by_them(sim: Simulator, tmp_path: Path) -> None:
    sim.open_round()
    path = tmp_path / "a.bundle"
    for length in (UPDATE_HEADER_BYTES_MAX + 1, 2**32 - 1):
        path.write_bytes(MAGIC + length.to_bytes(4, "little") + bytes(UPDATE_HEADER_BYTES_MAX + 1))
        with pytest.raises(MalformedError, match="at most"):
            open_bundle(path)
    envelope = encode_envelope(sim.update("rover-1", payload_bytes=PAYLOAD_BYTES_MAX + 1)[0])
    with path.open("wb") as file:
        file.write(MAGIC + len(envelope).to_bytes(4, "little") + envelope)
        file.truncate(file.tell() + PAYLOAD_BYTES_MAX + 1)
    with pytest.raises(MalformedError, match=str(PAYLOAD_BYTES_MAX)):
        open_bundle(path)


def test_other_files_are_no_bundles(tmp_path: Path) -> None:
    path = tmp_path / "a.bundle"
    with pytest.raises(NotFoundError):
        open_bundle(path)
    path.write_bytes(b"SFRLBND2" + bytes(40))
    assert not is_bundle(path)
    with pytest.raises(MalformedError, match="no bundle"):
        open_bundle(path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(MalformedError, match="regular file"):
            open_bundle(tmp_path / name)


def test_a_bundle_that_was_opened_and_refused_holds_no_file(sim: Simulator, tmp_path: Path) -> None:
    sim.open_round()
    path = tmp_path / "a.bundle"
    write_bundle(path, signed(sim, encoded()))
    path.write_bytes(path.read_bytes()[:-1])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(MalformedError):
            open_bundle(path)
    assert len(os.listdir("/proc/self/fd")) == before


def refused(sim: Simulator, folder: Path, packed: SignedUpdate) -> Exception:
    path = folder / "damaged.bundle"
    path.unlink(missing_ok=True)
    write_bundle(path, packed)
    with open_bundle(path) as bundle, pytest.raises((DigestError, PayloadError)) as found:
        bundle.check_payload()
    return found.value


def test_a_payload_that_was_changed_on_its_way_is_not_the_signed_one(sim: Simulator, tmp_path: Path) -> None:
    sim.open_round()
    packed = signed(sim, update := encoded())
    for at in (0, 40, len(update.payload) // 2, len(update.payload) - 1):
        changed = bytearray(update.payload)
        changed[at] ^= 1
        assert isinstance(refused(sim, tmp_path, replace(packed, payload=bytes(changed))), DigestError)


def reason(sim: Simulator, folder: Path, packed: SignedUpdate) -> str:
    found = refused(sim, folder, packed)
    assert isinstance(found, PayloadError)
    return found.reason


def test_a_signed_payload_that_no_gatekeeper_takes_is_told_by_its_reason(sim: Simulator, tmp_path: Path) -> None:
    sim.open_round()
    update = encoded()
    last = bytearray(update.payload)
    last[-1] ^= 1
    wrong_root = signed(sim, update, payload_root=sha256(b"another"))
    assert reason(sim, tmp_path, wrong_root) == "digest"
    # Under the signed root, and not what the root leads to.
    assert reason(sim, tmp_path, signed(sim, update, bytes(last))) == "digest"
    assert reason(sim, tmp_path, signed(sim, update, nonzeros=update.nonzeros - 1)) == "declared"
    assert reason(sim, tmp_path, signed(sim, encoded("dense"), update.payload)) == "format"
    short = {"payload_root": update.root}
    assert reason(sim, tmp_path, signed(sim, update, update.payload[:-1], **short)) == "length"
    assert reason(sim, tmp_path, signed(sim, update, update.payload[:100], **short)) == "length"
    assert reason(sim, tmp_path, signed(sim, update, update.payload[:20], **short)) == "length"
    agreed = encoded("agreed")
    assert reason(sim, tmp_path, signed(sim, agreed, agreed.payload[:50], payload_root=agreed.root)) == "length"


def test_a_leaf_under_the_signed_root_is_decoded_all_the_same(sim: Simulator, tmp_path: Path) -> None:
    sim.open_round()
    update = encode_update(
        24, np.array([1, 4]), np.array([0.5, -0.25]), value_type="fp32", grid_exponent=16, rng=np.random.default_rng(1)
    )
    # -0 is no value; header and root are made for the bytes that are there.
    leaf = update.payload[64:-8] + b"\0\0\0\x80" + update.payload[-4:]
    payload = update.payload[:32] + sha256(b"\0" + leaf) + leaf
    statement: dict[str, object] = {"payload_root": sha256(
        b"\x01" + sha256(b"\0" + payload[:28] + payload[28:32]) + sha256(b"\0" + leaf)
    )}  # fmt: skip
    assert reason(sim, tmp_path, signed(sim, update, payload, **statement)) == "not_canonical"


def test_a_bundle_says_what_was_signed_before_any_of_its_payload_is_read(sim: Simulator, tmp_path: Path) -> None:
    sim.open_round()
    path = tmp_path / "a.bundle"
    write_bundle(path, signed(sim, encoded()))
    raw = path.read_bytes()
    path.write_bytes(raw[:-1000] + bytes(1000))
    with open_bundle(path) as bundle:
        said: UpdateStatement = bundle.update
        assert (said.participant, said.round, said.segment) == ("rover-1", 1, "rocks")
