"""Models of several segments, kept beside each other; and the one that the kept round begins from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import GRID, MANIFEST, Simulator

from sfrl_secure.aggregation.models import ModelSnapshot, encode_step
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.participant.masks import MASKS_KEPT, MaskFetcher
from sfrl_secure.participant.models import MODELS_KEPT, WRITE_SECONDS, ModelFetcher
from sfrl_secure.rpc.downloads import Fetched
from sfrl_secure.sparse.mask import encode_mask
from sfrl_secure.wire.downloads import ModelRequest

SEGMENTS = ("ice", "rocks", "sand")


class Served:
    """A gatekeeper's client that has a few objects: whole, or as a step to a model that the caller has."""

    def __init__(self) -> None:
        self.objects: dict[Digest, bytes] = {}
        self.steps: dict[tuple[Digest, Digest], bytes] = {}
        self.asked: list[ModelRequest] = []

    def fetch_model(self, request: ModelRequest, bytes_max: int, **more: Any) -> Fetched:
        self.asked.append(request)
        for base in request.has:
            if (base, request.model) in self.steps:
                return Fetched(base, (memoryview(self.steps[base, request.model]),))
        return Fetched(None, (memoryview(bytearray(self.objects[request.model])),))

    def model(self, number: int) -> Digest:
        raw = ModelSnapshot(MANIFEST, GRID, np.full(MANIFEST.coordinates, number)).to_bytes()
        self.objects[sha256(raw)] = raw
        return sha256(raw)

    def step(self, before: int, after: int) -> None:
        change = np.full(MANIFEST.coordinates, after - before)
        self.steps[self.model(before), self.model(after)] = encode_step(MANIFEST, GRID, change)


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def terms(sim: Simulator) -> ModelTerms:
    return sim.segment.terms.model


def fetcher(served: Served, folder: Path, **more: Any) -> ModelFetcher:
    return ModelFetcher(served, folder, **more)  # type: ignore[arg-type] # what it calls of a client


def mask_fetcher(served: Served, folder: Path, **more: Any) -> MaskFetcher:
    return MaskFetcher(served, folder, **more)  # type: ignore[arg-type] # what it calls of a client


def files(folder: Path, segment: str, what: str = "models") -> set[str]:
    return {path.name for path in (folder / what / segment).iterdir()}


def test_two_models_of_each_segment_are_kept(served: Served, terms: ModelTerms, tmp_path: Path) -> None:
    made = fetcher(served, tmp_path)
    numbers = {segment: [10 * place + n for n in range(3)] for place, segment in enumerate(SEGMENTS)}
    for n in range(3):
        for segment in SEGMENTS:
            made.model(segment, served.model(numbers[segment][n]), terms)
    for segment in SEGMENTS:
        assert files(tmp_path, segment) == {served.model(n).hex() for n in numbers[segment][-MODELS_KEPT:]}
    served.asked.clear()
    for again in (made, fetcher(served, tmp_path)):
        for segment in SEGMENTS:
            for n in numbers[segment][-MODELS_KEPT:]:
                again.model(segment, served.model(n), terms)
    assert not served.asked


def test_only_models_of_the_segment_are_named_as_there(served: Served, terms: ModelTerms, tmp_path: Path) -> None:
    made = fetcher(served, tmp_path)
    for segment, number in (("ice", 1), ("rocks", 11), ("ice", 2)):
        made.model(segment, served.model(number), terms)
    assert served.asked[-1].has == (served.model(1),)


def test_the_newest_of_each_segment_is_written_at_the_end(served: Served, terms: ModelTerms, tmp_path: Path) -> None:
    made = fetcher(served, tmp_path, monotonic=lambda: 0.0)
    for place, segment in enumerate(SEGMENTS):
        served.step(10 * place, 10 * place + 1)
        made.model(segment, served.model(10 * place), terms)
    for place, segment in enumerate(SEGMENTS):
        made.model(segment, served.model(10 * place + 1), terms)
        assert files(tmp_path, segment) == {served.model(10 * place).hex()}
    made.write()
    for place, segment in enumerate(SEGMENTS):
        assert served.model(10 * place + 1).hex() in files(tmp_path, segment)


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_model_that_the_kept_round_begins_from_is_never_the_one_to_go(
    served: Served, terms: ModelTerms, tmp_path: Path, is_whole: bool
) -> None:
    now = [0.0]
    spared: Callable[[str], Digest | None] = {"ice": served.model(0)}.get
    made = fetcher(served, tmp_path, spared=spared, monotonic=lambda: now[0])
    for n in range(5):
        now[0] += WRITE_SECONDS
        if not is_whole and n:
            served.step(n - 1, n)
        made.model("ice", served.model(n), terms)
        made.model("rocks", served.model(n), terms)
        assert files(tmp_path, "ice") == {served.model(each).hex() for each in {0, n}}
    assert files(tmp_path, "rocks") == {served.model(n).hex() for n in (3, 4)}
    assert fetcher(served, tmp_path).kept_model("ice", served.model(0), terms) is not None


def test_a_clusters_model_takes_no_other_models_place_and_is_no_base(
    served: Served, terms: ModelTerms, tmp_path: Path
) -> None:
    made = fetcher(served, tmp_path, monotonic=lambda: 0.0)
    served.step(0, 1)
    for n in (0, 1):
        made.model("ice", served.model(n), terms)
    for n in (7, 8):
        assert sha256(made.cluster_model("ice", served.model(n), terms).to_bytes()) == served.model(n)
        assert served.asked[-1].has == ()
    made.write()
    assert files(tmp_path, "ice") == {served.model(n).hex() for n in (0, 1)}
    assert files(tmp_path, "ice", "cluster-models") == {served.model(8).hex()}
    made.model("ice", served.model(2), terms)
    assert served.asked[-1].has == (served.model(1), served.model(0))


def test_a_mask_of_each_segment_is_kept(served: Served, tmp_path: Path) -> None:
    made = mask_fetcher(served, tmp_path)
    wanted = {}
    for place, segment in enumerate(SEGMENTS):
        raw = encode_mask(MANIFEST.coordinates, np.array([place, place + 3], np.int64))
        served.objects[sha256(raw)] = raw
        wanted[segment] = MaskTerms(sha256(raw), 2)
        made.mask(segment, wanted[segment].digest, wanted[segment], MANIFEST.coordinates)
    assert len(served.asked) == 3
    for again in (made, mask_fetcher(served, tmp_path)):
        for segment in SEGMENTS:
            terms_mask, digest = wanted[segment], wanted[segment].digest
            assert again.mask(segment, digest, terms_mask, MANIFEST.coordinates).digest == digest
            assert again.kept_mask("other", digest, terms_mask, MANIFEST.coordinates) is None
    assert len(served.asked) == 3


def test_the_masks_of_two_rounds_are_kept_and_that_of_the_kept_round_never_goes(
    served: Served, tmp_path: Path
) -> None:
    digests = []
    for n in range(4):
        raw = encode_mask(MANIFEST.coordinates, np.array([n, n + 5], np.int64))
        served.objects[sha256(raw)] = raw
        digests.append(sha256(raw))
    # One set of terms names the first; rounds have others of the same size.
    wanted = MaskTerms(digests[0], 2)
    spared: Callable[[str], Digest | None] = {"ice": digests[0]}.get
    made = mask_fetcher(served, tmp_path, spared=spared)
    for n, digest in enumerate(digests):
        for segment in ("ice", "rocks"):
            assert made.mask(segment, digest, wanted, MANIFEST.coordinates).indices.tolist() == [n, n + 5]
    assert files(tmp_path, "ice", "masks") == {digests[0].hex(), digests[3].hex()}
    assert files(tmp_path, "rocks", "masks") == {digest.hex() for digest in digests[-MASKS_KEPT:]}
    served.asked.clear()
    again = mask_fetcher(served, tmp_path)
    assert again.kept_mask("ice", digests[0], wanted, MANIFEST.coordinates) is not None
    assert again.kept_mask("ice", digests[1], wanted, MANIFEST.coordinates) is None
    assert not served.asked


def test_whoever_asks_nobody_is_told_that_it_is_not_here(served: Served, terms: ModelTerms, tmp_path: Path) -> None:
    made = fetcher(served, tmp_path)
    made.model("ice", served.model(1), terms)
    assert made.kept_model("ice", served.model(2), terms) is None
    assert made.kept_model("rocks", served.model(1), terms) is None
    kept = made.kept_model("ice", served.model(1), terms)
    assert kept is not None
    assert sha256(kept.to_bytes()) == served.model(1)
    assert len(served.asked) == 1
