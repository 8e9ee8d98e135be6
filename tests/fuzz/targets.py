"""What is fuzzed: for each kind of hostile bytes the check, and the seeds that are damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache

from sfrl_secure.crypto.envelope import envelope_to_json
from sfrl_secure.ids import Digest
from sfrl_secure.translog.anchor import format_anchor
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.policy import format_trust_policy
from sfrl_secure.translog.tiles import TILE_WIDTH, bundles_of, encode_bundle, tiles_of
from sfrl_secure.translog.tlog_proof import TlogProof, format_tlog_proof
from sfrl_secure.translog.witness import AddCheckpointRequest, format_add_checkpoint
from sfrl_secure.wire import append_entries, audit_service, log_reads
from sfrl_secure.wire.receipts import Receipt, ReceiptKind, encode_receipt

from . import checks
from .checks import ENTRIES
from .harness import Target
from .signed import signed_targets
from .update_targets import update_targets
from .world import OLD_SIZE, SIZE, the_world

_WORLD = the_world()
_ANCHORED = ("newest", "earlier", "archived")


@cache
def all_targets() -> tuple[Target, ...]:
    """All of them, in a fixed order."""
    world = _WORLD
    notes = tuple(world.notes.values())
    envelopes = tuple(world.envelopes.values())
    requests = tuple(audit_service.encode_append_request(each) for each in envelopes)
    statements = tuple(each.statement for each in envelopes if each.payload_type.endswith("statement.v1"))
    found: dict[str, tuple[Callable[[bytes], None], Iterable[bytes]]] = {
        "note": (checks.check_note, (*notes, world.fork)),
        "checkpoint": (checks.check_checkpoint, tuple(parse_note(note).text.encode() for note in notes)),
        "anchor": (checks.check_anchor, (format_anchor(world.notes[name], world.policy) for name in _ANCHORED)),
        "cosignature_lines": (checks.check_cosignature_lines, _cosignature_lines()),
        "recorded_size": (checks.check_recorded_size, (b"0\n", b"200\n", b"9223372036854775807\n")),
        "add_checkpoint": (checks.check_add_checkpoint, _add_checkpoints()),
        "policy": (checks.check_policy, _policies()),
        "vkey": (checks.check_vkey, tuple(key.vkey.encode() for key in world.policy.logs[0].keys)),
        "tile": (checks.check_tile, _tiles()),
        "bundle": (checks.check_bundle, _bundles()),
        "tile_path": (checks.check_tile_path, _paths()),
        "inclusion": (checks.check_inclusion, _inclusions()),
        "consistency": (checks.check_consistency, _consistencies()),
        "subtree": (checks.check_subtree, _subtrees()),
        "tlog_proof": (checks.check_tlog_proof, _tlog_proofs()),
        "append_request": (checks.check_append_request, requests),
        "append_requests": (checks.check_append_requests, (b"".join(requests), *(2 * each for each in requests))),
        "append_answer": (checks.check_append_answer, _append_answers()),
        "append_answers": (checks.check_append_answers, _entries_answers()),
        "follow_request": (checks.check_follow_request, map(audit_service.encode_follow_request, (0, 1, SIZE, 2**62))),
        "follow_answer": (checks.check_follow_answer, _follow_answers()),
        "prove_request": (checks.check_prove_request, _prove_requests()),
        "prove_answer": (checks.check_prove_answer, map(log_reads.encode_prove_response, map(world.logged, ENTRIES))),
        "bundle_request": (checks.check_bundle_request, map(log_reads.encode_bundle_request, bundles_of(SIZE))),
        "bundle_chunk": (checks.check_bundle_chunk, map(log_reads.encode_bundle_chunk, _bundles())),
        "entry": (checks.check_entry, world.entries[: len(envelopes)]),
        "statement": (checks.check_statement, statements),
        "envelope_json": (checks.check_envelope_json, tuple(envelope_to_json(each) for each in envelopes)),
        "receipt": (checks.check_receipt, _receipts()),
        **signed_targets(),
    }
    return (*(Target(name, tuple(seeds), check) for name, (check, seeds) in found.items()), *update_targets())


def targets_named(prefix: str) -> tuple[Target, ...]:
    """Those whose names begin so."""
    return tuple(target for target in all_targets() if target.name.startswith(prefix))


def _numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in values)


def _cosignature_lines() -> Iterator[bytes]:
    for count in range(1, len(_WORLD.lines) + 1):
        yield "".join(line.line for line in _WORLD.lines[:count]).encode()


def _add_checkpoints() -> Iterator[bytes]:
    def proof(old: int, new: int) -> tuple[Digest, ...]:
        return _WORLD.tree.consistency_proof(old, new).path

    for note in ("newest", "signed", "stranger", "half"):
        yield format_add_checkpoint(AddCheckpointRequest(OLD_SIZE, proof(OLD_SIZE, SIZE), _WORLD.notes[note]))
        yield format_add_checkpoint(AddCheckpointRequest(0, (), _WORLD.notes[note]))
    yield format_add_checkpoint(AddCheckpointRequest(OLD_SIZE, (), _WORLD.notes["earlier"]))
    yield format_add_checkpoint(AddCheckpointRequest(0, (), _WORLD.notes["empty"]))
    yield format_add_checkpoint(AddCheckpointRequest(OLD_SIZE, proof(OLD_SIZE, SIZE), _WORLD.fork))


def _policies() -> Iterator[bytes]:
    written = format_trust_policy(_WORLD.policy)
    yield written
    yield b"# a comment\n\n" + written.replace(b" ", b"\t ")
    yield written.replace(b"quorum any", b"quorum none")


def _tiles() -> Iterator[bytes]:
    for tile in tiles_of(SIZE):
        if tile.level == 0:
            yield b"".join(_WORLD.tree.leaf(tile.index * TILE_WIDTH + at) for at in range(tile.width))
    yield _WORLD.tree.leaf(0)


def _bundles() -> Iterator[bytes]:
    for bundle in bundles_of(SIZE):
        first = bundle.index * TILE_WIDTH
        yield encode_bundle(_WORLD.entries[first : first + bundle.width])


def _paths() -> Iterator[bytes]:
    for size in (1, SIZE, 70_000):
        for place in (*list(tiles_of(size))[-2:], *list(bundles_of(size))[-2:]):
            yield place.path.encode()
    yield b"tile/8/x001/x234/067"
    yield b"tile/entries/x123/456.p/255"


def _inclusions() -> Iterator[bytes]:
    for number, index in enumerate(ENTRIES):
        path = _WORLD.tree.inclusion_proof(index, SIZE).path
        yield bytes([number]) + _numbers(index, SIZE) + b"".join(path)


def _consistencies() -> Iterator[bytes]:
    for old, new in ((0, SIZE), (1, SIZE), (128, SIZE), (OLD_SIZE, SIZE), (255, 256), (SIZE, SIZE), (7, 8)):
        yield _numbers(old, new) + b"".join(_WORLD.tree.consistency_proof(old, new).path)


def _subtrees() -> Iterator[bytes]:
    for end, size in ((1, SIZE), (OLD_SIZE, SIZE), (256, SIZE), (7, 8), (SIZE, SIZE)):
        yield _numbers(0, end, size) + b"".join(_WORLD.tree.consistency_proof(end, size).path)
    for index in (3, 129, 299):  # of one entry, a subtree's proof is its audit path
        yield _numbers(index, index + 1, SIZE) + b"".join(_WORLD.tree.inclusion_proof(index, SIZE).path)


def _tlog_proofs() -> Iterator[bytes]:
    for index in ENTRIES:
        logged = _WORLD.logged(index)
        for note in ("newest", "half"):
            yield format_tlog_proof(TlogProof(logged.raw, index, logged.path, _WORLD.notes[note]))


def _append_answers() -> Iterator[bytes]:
    for index in ENTRIES:
        yield audit_service.encode_append_response(
            audit_service.AppendedEntry(_WORLD.logged(index), _WORLD.notes["signed"])
        )


def _entries_answers() -> Iterator[bytes]:
    refused = append_entries.Refusal(7, append_entries.ErrorDetail("role", "the role may not", None, 0))
    results = [_WORLD.logged(index) for index in ENTRIES]
    for answer in (
        append_entries.EntriesAnswer((*results, refused), _WORLD.notes["signed"]),
        append_entries.EntriesAnswer((refused,), b""),
    ):
        yield append_entries.encode_entries_response(answer)


def _follow_answers() -> Iterator[bytes]:
    batch = audit_service.FollowBatch(0, _WORLD.entries[:5], _WORLD.notes["signed"])
    yield audit_service.encode_follow_response(batch)
    yield audit_service.encode_follow_response(audit_service.FollowBatch(0, (), _WORLD.notes["newest"]))


def _prove_requests() -> Iterator[bytes]:
    yield log_reads.encode_prove_request(log_reads.ProveRequest(ENTRIES, SIZE))
    yield log_reads.encode_prove_request(log_reads.ProveRequest((0,), 1))


def _receipts() -> Iterator[bytes]:
    for kind in (ReceiptKind.ACKNOWLEDGED, ReceiptKind.WITNESSED):
        logged = {index: _WORLD.logged(index) for index in (0, 1, 2, 3, 4)}
        whole = Receipt(kind, _WORLD.notes["newest"], logged[0], (logged[1],), logged[2], logged[3])
        yield encode_receipt(whole)
        yield encode_receipt(replace(whole, roots=(logged[2], logged[4])))
