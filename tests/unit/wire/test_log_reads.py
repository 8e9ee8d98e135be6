from __future__ import annotations

from types import SimpleNamespace

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.tiles import Bundle
from sfrl_secure.wire import log_reads
from sfrl_secure.wire.log_reads import ProveRequest

LOGGED = LoggedEntry(3, b"entry", (Digest(bytes(32)),))
UNKNOWN_FIELD = b"\x98\x06\x01"


@pytest.mark.parametrize(
    "request_", [ProveRequest((0,), 1), ProveRequest((3, 9, 500), 501), ProveRequest(tuple(range(64)), 2**63 - 1)]
)
def test_a_request_for_proofs_survives_and_is_taken_in_one_form_only(request_: ProveRequest) -> None:
    raw = log_reads.encode_prove_request(request_)
    assert log_reads.parse_prove_request(raw) == request_
    for damaged in (raw + UNKNOWN_FIELD, raw + raw, raw[:-1]):
        with pytest.raises(MalformedError):
            log_reads.parse_prove_request(damaged)


@pytest.mark.parametrize(
    ("indices", "tree_size"),
    [
        ((), 5), (tuple(range(65)), 100), ((3, 3), 5), ((4, 3), 5), ((5,), 5), ((-1,), 5), ((0,), 0), ((0,), 2**63),
    ],
)
def test_only_indices_that_ascend_within_the_tree_are_asked_for(indices: tuple[int, ...], tree_size: int) -> None:
    with pytest.raises(MalformedError):
        ProveRequest(indices, tree_size)


def test_a_packed_list_of_too_many_indices_is_refused_before_it_is_looked_at(by_hand: SimpleNamespace) -> None:
    raw = by_hand.Msg("Prove", ((1, bytes(range(1, 66))), (2, 100))).encode()
    with pytest.raises(MalformedError, match="64"):
        log_reads.parse_prove_request(raw)
    with pytest.raises(MalformedError, match="1024"):
        log_reads.parse_prove_request(by_hand.Msg("Prove", ((1, bytes(2_000)), (2, 100))).encode())


def test_a_request_for_a_bundle_survives_and_is_taken_in_one_form_only(by_hand: SimpleNamespace) -> None:
    for bundle in (Bundle(0, 1), Bundle(1234, 256)):
        raw = log_reads.encode_bundle_request(bundle)
        assert log_reads.parse_bundle_request(raw) == bundle
        for damaged in (raw + UNKNOWN_FIELD, raw + raw, raw[:-1]):
            with pytest.raises(MalformedError):
                log_reads.parse_bundle_request(damaged)
    for fields in (((1, 5),), ((2, 257),), ((1, 2**63), (2, 1))):
        with pytest.raises(MalformedError):
            log_reads.parse_bundle_request(by_hand.Msg("Bundle", fields).encode())


def test_answers_survive_and_may_say_more_than_we_know(by_hand: SimpleNamespace) -> None:
    proof = log_reads.encode_prove_response(LOGGED)
    assert log_reads.parse_prove_response(proof + UNKNOWN_FIELD) == LOGGED
    chunk = log_reads.encode_bundle_chunk(b"chunk")
    assert log_reads.parse_bundle_chunk(chunk + UNKNOWN_FIELD) == b"chunk"
    for parse, raw in (
        (log_reads.parse_prove_response, b""),
        (log_reads.parse_prove_response, proof[:-1]),
        (log_reads.parse_bundle_chunk, b""),
        (log_reads.parse_bundle_chunk, by_hand.Msg("Chunk", ((1, bytes(2**20 + 1)),)).encode()),
    ):
        with pytest.raises(MalformedError):
            parse(raw)  # type: ignore[operator]
    for wrong in (b"", bytes(2**20 + 1)):
        with pytest.raises(MalformedError):
            log_reads.encode_bundle_chunk(wrong)
