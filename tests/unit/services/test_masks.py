"""Masks of rounds: read once each, a few kept, and none that is not what the round's terms describe."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulator import MANIFEST, Simulator

from sfrl_secure.errors import DigestError, NotFoundError, PayloadError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import OBJECT_HEADER_BYTES_MAX
from sfrl_secure.services import masks as masks_module
from sfrl_secure.services.masks import MASKS_MAX, Masks
from sfrl_secure.sparse.mask import Mask, encode_mask


@pytest.fixture
def sim(tmp_path: Path) -> Simulator:
    """Terms whose rounds have masks of three coordinates."""
    made = Simulator(tmp_path)
    made.publish_terms(support_modes=["agreed", "free"], mask=made.agree(0, 3, 17))
    return made


@pytest.fixture
def terms(sim: Simulator) -> SegmentTerms:
    return sim.segment.terms


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """Digests of the masks that were decoded, in order."""
    read: list[Digest] = []
    decode = masks_module.decode_mask

    def counted(raw: bytes, coordinates: int) -> Mask:
        read.append(sha256(raw))
        return decode(raw, coordinates)

    monkeypatch.setattr(masks_module, "decode_mask", counted)
    return read


def stored(sim: Simulator, *coordinates: int) -> Digest:
    return sim.objects.put(encode_mask(MANIFEST.coordinates, np.array(coordinates, dtype=np.int64)))


def test_a_mask_is_read_once_and_a_few_are_kept(
    sim: Simulator, terms: SegmentTerms, decoded: list[Digest]
) -> None:
    masks, first = Masks(sim.objects), stored(sim, 0, 1, 2)
    assert masks.of(first, terms) is masks.of(first, terms)
    assert masks.of(first, terms).indices.tolist() == [0, 1, 2]
    assert decoded == [first]
    for n in range(MASKS_MAX):
        masks.of(stored(sim, 0, 1, 3 + n), terms)
    masks.of(first, terms)
    assert decoded.count(first) == 2


def test_the_mask_that_was_used_longest_ago_goes(sim: Simulator, terms: SegmentTerms, decoded: list[Digest]) -> None:
    masks, first = Masks(sim.objects), stored(sim, 0, 1, 2)
    for n in range(2 * MASKS_MAX):
        masks.of(first, terms)
        masks.of(stored(sim, 0, 1, 3 + n), terms)
    assert decoded.count(first) == 1


def test_it_is_the_rounds_mask_and_not_the_terms(sim: Simulator, terms: SegmentTerms) -> None:
    """A mask that changes has the digest that its round began with, and the number that the terms say."""
    assert Masks(sim.objects).of(stored(sim, 4, 5, 6), terms).indices.tolist() == [4, 5, 6]


def test_a_mask_of_another_number_than_the_terms_say_is_not_given_though_it_was_before(
    sim: Simulator, terms: SegmentTerms
) -> None:
    masks, digest = Masks(sim.objects), stored(sim, 0, 3, 17)
    masks.of(digest, terms)
    assert terms.mask is not None
    for number in (2, 4):
        others = replace(terms, mask=replace(terms.mask, nonzeros=number))
        with pytest.raises(PayloadError):
            masks.of(digest, others)


def test_what_is_missing_altered_or_no_mask_is_told_apart(sim: Simulator, terms: SegmentTerms) -> None:
    masks = Masks(sim.objects)
    with pytest.raises(NotFoundError):
        masks.of(sha256(b"nothing"), terms)
    digest = stored(sim, 0, 3, 17)
    path = sim.objects.path(digest)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(DigestError):
        masks.of(digest, terms)
    with pytest.raises(PayloadError):
        masks.of(sim.objects.put(b"no mask at all, of some length"), terms)
    path.write_bytes(raw)
    assert masks.of(digest, terms).digest == digest


def test_what_is_longer_than_any_mask_is_none_and_no_wait_helps(
    sim: Simulator, terms: SegmentTerms, decoded: list[Digest]
) -> None:
    masks, longer = Masks(sim.objects), bytes(8 * 3 + OBJECT_HEADER_BYTES_MAX + 1)
    digest = sim.objects.put(longer)
    for _ in range(2):
        with pytest.raises(PayloadError) as refusal:
            masks.of(digest, terms)
        assert refusal.value.reason == "format"
    assert decoded == []
    # A file of its name that is as long may be anybody's: it speaks for nobody.
    other = Masks(sim.objects)
    sim.objects.path(digest).write_bytes(b"1" + longer[1:])
    with pytest.raises(DigestError):
        other.of(digest, terms)


def test_a_mask_that_is_too_long_for_some_terms_is_given_for_others(sim: Simulator, terms: SegmentTerms) -> None:
    """Operators may have named it before they had the number right."""
    assert terms.mask is not None
    many = np.arange(0, 2**31, 2**18, dtype=np.int64)
    digest = sim.objects.put(encode_mask(2**31, many))
    big = replace(MANIFEST, tensors=(replace(MANIFEST.tensors[0], shape=(2**31,)),))
    model = replace(terms.model, manifest=big)
    few, right = (
        replace(terms, model=model, mask=replace(terms.mask, nonzeros=number)) for number in (1, len(many))
    )
    masks = Masks(sim.objects)
    with pytest.raises(PayloadError):
        masks.of(digest, few)
    assert masks.of(digest, right).indices.tolist() == many.tolist()


@pytest.mark.parametrize("count", [1, 2, 64, 65, 65_536, 65_537, 130_000])
def test_no_mask_is_longer_than_what_is_read(count: int) -> None:
    """The longest are those whose every block skips as far as it can: the bound leaves room for all of them."""
    stride = 2**31 // count
    indices = np.arange(count, dtype=np.int64) * stride + stride - 1
    # Far and near blocks in turn make the parameters' own code as long as it gets.
    uneven = np.where(np.arange(count) // 64 % 2, indices, indices - stride // 2)
    for each in (indices, uneven):
        assert len(encode_mask(2**31, each)) <= 8 * count + OBJECT_HEADER_BYTES_MAX


def test_what_is_no_mask_is_read_once_too(sim: Simulator, terms: SegmentTerms, decoded: list[Digest]) -> None:
    """An aggregator may name it as a round's mask, and each update that comes asks for it."""
    masks, digest = Masks(sim.objects), sim.objects.put(b"no mask at all, of some length")
    for _ in range(3):
        with pytest.raises(PayloadError):
            masks.of(digest, terms)
    assert decoded == [digest]
    # It takes the place of a mask, and goes when others come.
    for n in range(MASKS_MAX):
        masks.of(stored(sim, 0, 1, 3 + n), terms)
    with pytest.raises(PayloadError):
        masks.of(digest, terms)
    assert decoded.count(digest) == 2


def test_threads_that_ask_at_once_read_it_once(sim: Simulator, terms: SegmentTerms, decoded: list[Digest]) -> None:
    masks, digest = Masks(sim.objects), stored(sim, 0, 3, 17)
    begin = threading.Barrier(8)

    def ask() -> Mask:
        begin.wait()
        return masks.of(digest, terms)

    with ThreadPoolExecutor(8) as pool:
        found = [each.result() for each in [pool.submit(ask) for _ in range(8)]]
    assert {id(each) for each in found} == {id(found[0])}
    assert decoded == [digest]
