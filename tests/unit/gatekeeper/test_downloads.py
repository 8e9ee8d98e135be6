"""Downloads: the model or what leads to it, whichever is shorter; ranges of it; the mask; nothing that is not what its
name says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from simulator import GRID, MANIFEST, SEGMENT, Context, Simulator

from sfrl_secure.aggregation.models import decode_step, parse_model
from sfrl_secure.errors import DeniedError, DigestError, MalformedError, NotFoundError
from sfrl_secure.governance.aggregation_terms import CLUSTERED_MEAN, NextMaskTerms, RuleTerms
from sfrl_secure.governance.statements import ModelPublished, ModelsFetched
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.services.gatekeeper import downloads as downloads_module
from sfrl_secure.services.gatekeeper.downloads import Downloads
from sfrl_secure.wire.downloads import (
    ModelRequest,
    ModelSource,
    encode_model_request,
    parse_model_chunk,
    parse_model_source,
)


class Reader:
    """Fetches as one participant."""

    def __init__(self, sim: Simulator, name: str = "rover-1") -> None:
        self._servicer = sim.gatekeeper().servicer
        self._context: Any = Context(name)

    def fetch(self, model: Digest, *has: Digest, offset: int = 0, length: int = 0) -> tuple[ModelSource, list[bytes]]:
        raw = encode_model_request(ModelRequest(SEGMENT, model, has, offset, length))
        answers = self._servicer.fetch_model(raw, self._context)
        return parse_model_source(next(answers)), [parse_model_chunk(each) for each in answers]


@pytest.fixture
def models(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """The initial model and those of three rounds, each newer than the one before; a round is open."""
    monkeypatch.setattr(downloads_module, "CHUNK_BYTES_MAX", 50)
    found = [sim.segment.model]
    for number in range(2):
        sim.open_round()
        for rover in list(sim.rovers)[:3]:
            sim.admit(rover, {number: 4})
        if len(sim.segment.rounds[number + 1].admissions) < 3:
            sim.clock.advance(60_000_000)
        sim.close_round()
        sim.publish_model()
        found.append(sim.segment.model)
    sim.open_round()
    return found


def rebuilt(sim: Simulator, source: ModelSource, chunks: list[bytes]) -> Digest:
    """What a participant makes of it."""
    raw = b"".join(chunks)
    if source.base is None:
        return sha256(raw)
    model = parse_model(sim.objects.get(source.base, 10_000), MANIFEST, GRID)
    for length in source.object_bytes:
        step, raw = raw[:length], raw[length:]
        model = model.add_parts(decode_step(step, MANIFEST, GRID))
    assert raw == b""
    return sha256(model.to_bytes())


def fetched(sim: Simulator, begin: int) -> list[Digest]:
    bodies = [sim.log.statement_at(index).body for index in range(begin, len(sim.log.raw))]
    return [each.model for body in bodies if isinstance(body, ModelsFetched) for each in body.fetches]


def test_without_an_earlier_model_the_model_itself_is_sent(sim: Simulator, models: list[Digest]) -> None:
    source, chunks = Reader(sim).fetch(models[-1])
    assert source == ModelSource(None, (len(sim.objects.get(models[-1], 10_000)),))
    assert rebuilt(sim, source, chunks) == models[-1]


def test_who_has_an_earlier_model_is_sent_what_leads_from_it(sim: Simulator, models: list[Digest]) -> None:
    reader, begin = Reader(sim), len(sim.log.raw)
    for has in ((models[1],), (models[0], models[1]), (sha256(b"unknown"), models[1])):
        source, chunks = reader.fetch(models[2], *has)
        assert source.base == models[1]
        assert rebuilt(sim, source, chunks) == models[2]
    source, chunks = reader.fetch(models[2], models[0])
    assert (source.base, len(source.object_bytes)) in ((models[0], 2), (None, 1))
    assert rebuilt(sim, source, chunks) == models[2]
    assert fetched(sim, begin) == [models[2]]


def test_the_whole_model_is_sent_where_it_is_shorter(
    sim: Simulator, models: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    length_of = Downloads._length_of
    monkeypatch.setattr(
        Downloads, "_length_of",
        lambda self, digest, most: length_of(self, digest, most) if digest == models[2] else 10**6,
    )  # fmt: skip
    source, _ = Reader(sim).fetch(models[2], models[1])
    assert source.base is None


def test_a_model_that_only_a_rollback_left_behind_is_no_base(sim: Simulator, models: list[Digest]) -> None:
    sim.roll_back(models[0])
    sim.close_round()
    source, chunks = Reader(sim).fetch(models[0], models[2])
    assert source.base is None
    assert rebuilt(sim, source, chunks) == models[0]


def test_where_a_step_is_not_stored_the_model_itself_is_sent(sim: Simulator, models: list[Digest]) -> None:
    source, _ = Reader(sim).fetch(models[2], models[1])
    sim.objects.path(sim.segment.lineage[-1].aggregate).unlink()
    again, chunks = Reader(sim).fetch(models[2], models[1])
    assert (source.base, again.base) == (models[1], None)
    assert rebuilt(sim, again, chunks) == models[2]


def test_where_the_model_is_not_stored_what_leads_to_it_is_sent_and_else_nothing(
    sim: Simulator, models: list[Digest]
) -> None:
    sim.objects.path(models[2]).unlink()
    source, _ = Reader(sim).fetch(models[2], models[1])
    assert source.base == models[1]
    with pytest.raises(NotFoundError, match="not stored"):
        Reader(sim).fetch(models[2])


def test_every_range_is_that_part_of_what_is_sent(sim: Simulator, models: list[Digest]) -> None:
    reader = Reader(sim)
    for has in ((), (models[0],)):
        source, chunks = reader.fetch(models[2], *has)
        whole = b"".join(chunks)
        assert len(whole) == sum(source.object_bytes)
        first = source.object_bytes[0]
        for offset, length in ((0, 1), (1, 0), (first - 1, 2), (first - 1, 0), (49, 52), (0, 10**9), (len(whole), 0)):
            again, part = Reader(sim, "rover-2").fetch(models[2], *has, offset=offset, length=length)
            assert again == source
            assert b"".join(part) == whole[offset : offset + length if length else None]
            assert all(0 < len(chunk) <= 50 for chunk in part)


def test_ranges_and_calls_that_broke_add_nothing_to_the_log_and_nothing_is_no_fetch(
    sim: Simulator, models: list[Digest]
) -> None:
    reader, begin = Reader(sim), len(sim.log.raw)
    length = len(sim.objects.get(models[2], 10_000))
    assert reader.fetch(models[2], offset=length)[1] == []
    with pytest.raises(MalformedError, match="behind the end"):
        reader.fetch(models[2], offset=length + 1)
    assert len(sim.log.raw) == begin
    for offset in (10, 0, length - 1):
        reader.fetch(models[2], offset=offset, length=20)
        Reader(sim).fetch(models[2], models[1])
    assert (fetched(sim, begin), len(sim.log.raw)) == ([models[2]], begin + 1)
    # Another model, and another participant, are other fetches.
    reader.fetch(models[1])
    Reader(sim, "rover-2").fetch(models[2])
    assert fetched(sim, begin) == [models[2], models[1], models[2]]


def test_for_a_request_each_object_is_opened_once_and_its_length_is_remembered(
    sim: Simulator, models: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names many models that he has would else have each step opened for each of them."""
    opened: list[Digest] = []
    honest = sim.objects.open

    def open_(digest: Digest, bytes_max: int) -> Any:
        opened.append(digest)
        return honest(digest, bytes_max)

    monkeypatch.setattr(sim.objects, "open", open_)
    downloads, aggregates = Downloads(sim.objects), [step.aggregate for step in sim.segment.lineage]
    asked = ModelRequest(SEGMENT, models[2], (models[0], models[1]), 0, 0)
    with sim.view().reading() as state:
        wanted = downloads_module.wanted_of(state.segment(SEGMENT), asked, "rover-1")
    download = downloads.prepare(asked, wanted)
    sent = [piece.digest for piece in download.pieces]
    assert sorted(opened) == sorted([*aggregates, models[2], *sent])
    opened.clear()
    assert downloads.prepare(asked, wanted) == download
    assert sorted(opened) == sorted([*({*aggregates, models[2]} - set(sent)), *sent])


def test_of_lengths_that_are_remembered_the_newest_stay(
    sim: Simulator, models: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads_module, "LENGTHS_MAX", 2)
    downloads = Downloads(sim.objects)
    for model in (models[0], models[1], models[0], models[2]):
        asked = ModelRequest(SEGMENT, model)
        with sim.view().reading() as state:
            downloads.prepare(asked, downloads_module.wanted_of(state.segment(SEGMENT), asked, "rover-1"))
    assert set(downloads._lengths) == {models[0], models[2]}


def test_a_step_that_is_remembered_and_has_gone_is_not_sent(sim: Simulator, models: list[Digest]) -> None:
    reader = Reader(sim)
    assert reader.fetch(models[2], models[1])[0].base == models[1]
    path = sim.objects.path(sim.segment.lineage[-1].aggregate)
    raw = path.read_bytes()
    path.unlink()
    source, chunks = reader.fetch(models[2], models[1])
    assert source.base is None
    assert rebuilt(sim, source, chunks) == models[2]
    for other in (raw[:-1], raw + b"\0"):
        path.write_bytes(raw)
        assert reader.fetch(models[2], models[1])[0].base == models[1]
        path.write_bytes(other)
        with pytest.raises(DigestError):
            reader.fetch(models[2], models[1])


def test_of_steps_that_are_damaged_no_byte_goes_out_and_nothing_is_on_record(
    sim: Simulator, models: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is sound: it is not given either."""
    length_of = Downloads._length_of
    monkeypatch.setattr(
        Downloads, "_length_of",
        lambda self, digest, most: length_of(self, digest, most) if digest != models[2] else 10**6,
    )  # fmt: skip
    begin, path = len(sim.log.raw), sim.objects.path(sim.segment.lineage[-1].aggregate)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    asked = encode_model_request(ModelRequest(SEGMENT, models[2], (models[0],)))
    context: Any = Context("rover-1")
    answers = sim.gatekeeper().servicer.fetch_model(asked, context)
    with pytest.raises(DigestError):
        next(answers)
    assert len(sim.log.raw) == begin


def test_an_object_that_is_not_what_its_name_says_is_not_given(sim: Simulator, models: list[Digest]) -> None:
    begin = len(sim.log.raw)
    for digest, has in ((sim.segment.lineage[-1].aggregate, (models[1],)), (models[2], ())):
        path = sim.objects.path(digest)
        raw = path.read_bytes()
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        with pytest.raises(DigestError):
            Reader(sim).fetch(models[2], *has)
        path.write_bytes(raw)
    assert fetched(sim, begin) == []


def test_the_mask_is_given_to_whoever_is_granted_and_gets_no_entry(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    sim.publish_terms(support_modes=["agreed"], mask=sim.agree(0, 3))
    sim.open_round()
    old = sim.segment.terms.mask
    assert old is not None
    sim.publish_terms(support_modes=["agreed"], mask=sim.agree(5, 6, 7))
    new = sim.segment.terms.mask
    assert new is not None
    begin = len(sim.log.raw)
    # The open round's, and that of the terms in force.
    for mask in (old, new):
        source, chunks = Reader(sim).fetch(mask.digest)
        assert source.base is None
        assert sha256(b"".join(chunks)) == mask.digest
    assert len(sim.log.raw) == begin
    sim.record("rover-1", groups=["orbiters"])
    with pytest.raises(DeniedError) as denied:
        Reader(sim).fetch(new.digest)
    assert denied.value.reason == "not_granted"
    sim.close()


def test_what_is_neither_model_nor_mask_is_not_given(sim: Simulator, models: list[Digest]) -> None:
    for digest in (sim.segment.lineage[-1].aggregate, sim.update("rover-1")[1].payload_sha256, sha256(b"nothing")):
        with pytest.raises(NotFoundError, match="segment's"):
            Reader(sim).fetch(digest, models[1])


def test_the_masks_and_the_clusters_models_of_published_steps_are_given_for_ever(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    sim.publish_terms(
        round_terms=RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=9),
        support_modes=["agreed", "free"], mask=sim.agree(0, 3, 9, 17, next=NextMaskTerms("votes", 2)),
        rule=RuleTerms(CLUSTERED_MEAN, alike_ppm=100_000),
    )  # fmt: skip
    for _ in range(2):
        sim.play_round("rover-1", "rover-2", "rover-3")
    bodies = [sim.log.statement_at(step.index).body for step in sim.segment.lineage]
    published = [body for body in bodies if isinstance(body, ModelPublished)]
    clusters = [cluster.model for body in published for cluster in body.clusters]
    masks = [body.next_mask for body in published if body.next_mask is not None]
    assert (len(clusters), len(masks)) == (2, 2)
    # A step that left the lineage is still one that was published.
    sim.roll_back(sim.initial_digest)
    begin = len(sim.log.raw)
    reader = Reader(sim)
    for digest in masks + clusters:
        source, chunks = reader.fetch(digest, sim.initial_digest)
        assert source.base is None
        assert sha256(b"".join(chunks)) == digest
    # Who took a model is on record, a cluster's too; who took a mask is nobody's business.
    assert set(fetched(sim, begin)) == set(clusters)
    sim.close()
