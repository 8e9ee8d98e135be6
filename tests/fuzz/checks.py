"""What must be true of whatever is accepted: one check for each kind of hostile bytes.

Two properties, wherever they make sense: what a parser takes is written back as the same bytes, so that no second
spelling means the same; and what verifies is one of the truths that `world` lists, never something that only looks so.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope, envelope_to_json, parse_envelope_json, verify_single
from sfrl_secure.errors import ConsistencyError, InclusionError, MalformedError, VerificationError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.anchor import open_anchor
from sfrl_secure.translog.checkpoint import format_checkpoint, parse_checkpoint
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash, root_of
from sfrl_secure.translog.note import NoteSignature, format_note, parse_note, parse_vkey
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import format_trust_policy, parse_trust_policy
from sfrl_secure.translog.proofs import ConsistencyProof, InclusionProof, verify_consistency, verify_inclusion
from sfrl_secure.translog.subtrees import Subtree, verify_subtree_consistency
from sfrl_secure.translog.tile_paths import parse_tile_path
from sfrl_secure.translog.tiles import TILE_WIDTH, encode_bundle, parse_bundle, parse_tile
from sfrl_secure.translog.tlog_proof import format_tlog_proof, open_tlog_proof, parse_tlog_proof
from sfrl_secure.translog.witness import (
    WitnessState,
    decide_add_checkpoint,
    format_add_checkpoint,
    open_cosignature_lines,
    parse_add_checkpoint,
    parse_recorded_size,
)
from sfrl_secure.wire import append_entries, audit_service, log_reads
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_entry, encode_envelope, parse_entry
from sfrl_secure.wire.receipts import encode_receipt, parse_receipt
from sfrl_secure.wire.statements import encode_statement, parse_statement

from .world import OLD_SIZE, ORIGIN, SIZE, TIME, the_world

_WORLD = the_world()
_NEWEST = parse_checkpoint(parse_note(_WORLD.notes["newest"]).text)
ENTRIES = (2, 3, 255, 299)
"""Leaves that proofs are about."""

_STATUSES = {200, 400, 403, 404, 409, 422}


def _same(written: bytes, raw: bytes) -> None:
    assert written == raw, "what was taken is written in another way"


# Notes and checkpoints


def check_note(raw: bytes) -> None:
    """Parse a note and open it as a checkpoint, as today's and as one that was kept."""
    _same(format_note(parse_note(raw)), raw)
    kept = open_checkpoint(raw, _WORLD.policy, quorum=True, archived=True)
    assert kept.checkpoint in _WORLD.checkpoints, "a checkpoint opens that the log never signed"
    assert kept.quorum_met
    assert _WORLD.policy.is_quorum(kept.witness_times.keys())
    assert set(kept.witness_times.values()) <= {TIME, TIME + 1}
    opened = open_checkpoint(raw, _WORLD.policy, quorum=True)
    assert opened.checkpoint == kept.checkpoint


def check_checkpoint(raw: bytes) -> None:
    """Parse a checkpoint's text."""
    text = _text(raw)
    assert format_checkpoint(parse_checkpoint(text)) == text


def check_cosignature_lines(raw: bytes) -> None:
    """Take a witness's answer."""
    keys = [each.key for each in _WORLD.witnesses.values()]
    lines: tuple[NoteSignature, ...] = open_cosignature_lines(raw, format_checkpoint(_NEWEST), keys)
    assert lines
    assert set(lines) <= set(_WORLD.lines), "a cosignature holds that no witness gave"


def check_anchor(raw: bytes) -> None:
    """Open an anchor."""
    anchor = open_anchor(raw, _WORLD.policy)
    assert anchor.checkpoint in _WORLD.checkpoints, "an anchor opens that the log never signed"
    assert anchor.time_seconds in {None, TIME, TIME + 1}


def check_recorded_size(raw: bytes) -> None:
    """Take the size that a witness says it has."""
    _same(b"%d\n" % parse_recorded_size(raw), raw)


def check_policy(raw: bytes) -> None:
    """Parse a trust policy; it may be written with other blanks and comments, so only the values come back."""
    policy = parse_trust_policy(raw)
    assert parse_trust_policy(format_trust_policy(policy)) == policy


def check_vkey(raw: bytes) -> None:
    """Parse a verifier key."""
    text = _text(raw)
    assert parse_vkey(text).vkey == text


def check_add_checkpoint(raw: bytes) -> None:
    """Ask a witness that has recorded an earlier checkpoint. It answers every request and raises nothing."""
    signed: list[str] = []

    def cosign(text: str) -> list[NoteSignature]:
        signed.append(text)
        return [_WORLD.witnesses["w2"].cosign(text, TIME + 2)]

    logs = {log.origin: log for log in _WORLD.policy.logs}
    earlier = parse_checkpoint(parse_note(_WORLD.notes["earlier"]).text)
    for recorded in ({}, {ORIGIN: WitnessState(earlier, _WORLD.notes["earlier"])}):
        signed.clear()
        try:
            answer = decide_add_checkpoint(raw, logs=logs, recorded=recorded, cosign=cosign)
        except Exception as error:
            raise AssertionError(f"a request makes the witness raise {type(error).__name__}") from error
        assert answer.status in _STATUSES
        assert bool(signed) == (answer.status == 200) == (answer.new_state is not None)
        if answer.new_state is not None:
            assert signed == [format_checkpoint(answer.new_state.checkpoint)]
            assert answer.new_state.checkpoint in _WORLD.checkpoints, "a witness cosigns what the log never signed"
            assert answer.new_state.checkpoint.size >= (OLD_SIZE if recorded else 0)
            parse_note(answer.new_state.note)
        if answer.status == 409:
            assert parse_recorded_size(answer.body) == (OLD_SIZE if recorded else 0)
    request = parse_add_checkpoint(raw)
    _same(format_add_checkpoint(request), raw)


# Tiles, bundles, proofs


def check_tile(raw: bytes) -> None:
    """Parse a full tile and a partial one; the full one's root is in the tree."""
    for width in (TILE_WIDTH, SIZE % TILE_WIDTH, 1):
        if len(raw) == 32 * width or width == 1:
            hashes = parse_tile(raw, width)
            _same(b"".join(hashes), raw)
            if width > 1:
                first = 0 if width == TILE_WIDTH else TILE_WIDTH
                is_true = list(hashes) == [_WORLD.tree.leaf(first + at) for at in range(width)]
                assert (root_of(hashes) == root_of(map(_WORLD.tree.leaf, range(first, first + width)))) == is_true
            return


def check_bundle(raw: bytes) -> None:
    """Parse a full bundle and a partial one."""
    refusal: MalformedError | None = None
    for first, width in ((0, TILE_WIDTH), (TILE_WIDTH, SIZE % TILE_WIDTH), (0, 1)):
        try:
            entries = parse_bundle(raw, width)
        except MalformedError as error:
            refusal = error
            continue
        _same(encode_bundle(entries), raw)
        is_true = entries == _WORLD.entries[first : first + width]
        root = root_of(map(_WORLD.tree.leaf, range(first, first + width)))
        assert (root_of(map(leaf_hash, entries)) == root) == is_true
        return
    assert refusal is not None
    raise refusal


def check_tile_path(raw: bytes) -> None:
    """Parse the path of a tile."""
    text = _text(raw)
    assert parse_tile_path(text).path == text


def check_inclusion(raw: bytes) -> None:
    """Verify an inclusion proof: entry number, index, size, path."""
    entry = _WORLD.entries[ENTRIES[_number(raw, 0, 1) % len(ENTRIES)]]
    index, size, path = _number(raw, 1, 8), _number(raw, 9, 8), _hashes(raw[17:])
    verify_inclusion(entry, InclusionProof(index, size, path), _NEWEST.root)
    # A path does not tell every size from every other; whoever verifies has the size from the checkpoint.
    if size == SIZE:
        assert _WORLD.entries[index] == entry, "an entry is proven where it is not"
        assert path == _WORLD.tree.inclusion_proof(index, SIZE).path


def check_consistency(raw: bytes) -> None:
    """Verify a consistency proof between sizes of the log, whose roots are known: old size, new size, path."""
    old, new, path = _number(raw, 0, 8), _number(raw, 8, 8), _hashes(raw[16:])
    proof = ConsistencyProof(old, new, path)
    old_root, new_root = (_WORLD.tree.root(size) if size <= SIZE else _NEWEST.root for size in (old, new))
    if old:
        try:
            verify_consistency(proof, parse_checkpoint(parse_note(_WORLD.fork).text).root, new_root)
        except ConsistencyError:
            pass
        else:
            raise AssertionError("a root of another history is proven consistent")
    verify_consistency(proof, old_root, new_root)
    if new <= SIZE:
        assert path == _WORLD.tree.consistency_proof(old, new).path


def check_subtree(raw: bytes) -> None:
    """Verify that a subtree hangs in the tree: start, end, size, path."""
    start, end, size, path = _number(raw, 0, 8), _number(raw, 8, 8), _number(raw, 16, 8), _hashes(raw[24:])
    subtree = Subtree(start, end)
    root = root_of(map(_WORLD.tree.leaf, range(start, end))) if end <= SIZE else _NEWEST.root
    tree_root = _WORLD.tree.root(size) if size <= SIZE else _NEWEST.root
    if subtree.size:
        try:
            verify_subtree_consistency(subtree, size, path, EMPTY_ROOT, tree_root)
        except ConsistencyError:
            pass
        else:
            raise AssertionError("another subtree is proven to be in the tree")
    verify_subtree_consistency(subtree, size, path, root, tree_root)
    if start == 0 < end and size <= SIZE:
        assert path == _WORLD.tree.consistency_proof(end, size).path


def check_tlog_proof(raw: bytes) -> None:
    """Open a proof file."""
    _same(format_tlog_proof(parse_tlog_proof(raw)), raw)
    opened = open_tlog_proof(raw, _WORLD.policy)
    assert opened.checkpoint.checkpoint in _WORLD.checkpoints
    assert _WORLD.entries[opened.leaf_index] == opened.entry, "an entry is proven where it is not"


# Messages and entries


def check_append_request(raw: bytes) -> None:
    """Take one envelope."""
    envelope = audit_service.parse_append_request(raw)
    _same(audit_service.encode_append_request(envelope), raw)
    _check_envelope(envelope)


def check_append_requests(raw: bytes) -> None:
    """Take many envelopes; one that is none does not spoil the others."""
    pieces = append_entries.split_envelopes(raw)
    _same(append_entries.join_envelopes(pieces), raw)
    taken = append_entries.parse_entries_request(raw)
    assert len(taken) == len(pieces)
    for piece, envelope in zip(pieces, taken, strict=True):
        if isinstance(envelope, Envelope):
            _same(encode_envelope(envelope), piece)
            try:
                _check_envelope(envelope)
            except (MalformedError, VerificationError):
                continue


def check_append_answers(raw: bytes) -> None:
    """Take receipts A of many envelopes, and verify them."""
    answer = append_entries.parse_entries_response(raw)
    checkpoint = open_checkpoint(answer.checkpoint, _WORLD.policy, quorum=False).checkpoint
    for result in answer.results:
        if isinstance(result, append_entries.Refusal):
            continue
        verify_inclusion(result.raw, InclusionProof(result.index, checkpoint.size, result.path), checkpoint.root)
        assert _WORLD.entries[result.index] == result.raw, "an entry is acknowledged where it is not"


def check_append_answer(raw: bytes) -> None:
    """Take receipt A, and verify it."""
    appended = audit_service.parse_append_response(raw)
    checkpoint = open_checkpoint(appended.checkpoint, _WORLD.policy, quorum=False).checkpoint
    logged = appended.logged
    verify_inclusion(logged.raw, InclusionProof(logged.index, checkpoint.size, logged.path), checkpoint.root)
    assert _WORLD.entries[logged.index] == logged.raw, "an entry is acknowledged where it is not"


def check_follow_request(raw: bytes) -> None:
    """Take a request to follow."""
    _same(audit_service.encode_follow_request(audit_service.parse_follow_request(raw)), raw)


def check_follow_answer(raw: bytes) -> None:
    """Take entries and a note; an answer may have fields that are not known, so only the values come back."""
    batch = audit_service.parse_follow_response(raw)
    assert audit_service.parse_follow_response(audit_service.encode_follow_response(batch)) == batch


def check_prove_request(raw: bytes) -> None:
    """Take a request for proofs."""
    _same(log_reads.encode_prove_request(log_reads.parse_prove_request(raw)), raw)


def check_prove_answer(raw: bytes) -> None:
    """Take an entry with its proof, and verify it."""
    logged = log_reads.parse_prove_response(raw)
    verify_inclusion(logged.raw, InclusionProof(logged.index, SIZE, logged.path), _NEWEST.root)
    assert _WORLD.entries[logged.index] == logged.raw, "an entry is proven where it is not"


def check_bundle_request(raw: bytes) -> None:
    """Take a request for a bundle."""
    _same(log_reads.encode_bundle_request(log_reads.parse_bundle_request(raw)), raw)


def check_bundle_chunk(raw: bytes) -> None:
    """Take a chunk of a bundle."""
    chunk = log_reads.parse_bundle_chunk(raw)
    assert log_reads.parse_bundle_chunk(log_reads.encode_bundle_chunk(chunk)) == chunk


def check_entry(raw: bytes) -> None:
    """Take a leaf, its content and its signature; it is in the tree as it is or not at all."""
    entry = parse_entry(raw)
    _same(encode_entry(entry), raw)
    if raw not in _WORLD.entries:
        for index in ENTRIES:
            try:
                verify_inclusion(raw, _WORLD.tree.inclusion_proof(index, SIZE), _NEWEST.root)
            except InclusionError:
                continue
            raise AssertionError("an entry is in the tree that is not in the log")
    _check_envelope(entry.envelope)


def check_statement(raw: bytes) -> None:
    """Take a statement."""
    _same(encode_statement(parse_statement(raw)), raw)


def check_envelope_json(raw: bytes) -> None:
    """Take an envelope as people carry it."""
    envelope = parse_envelope_json(raw)
    assert parse_envelope_json(envelope_to_json(envelope)) == envelope
    _check_envelope(envelope)


def check_receipt(raw: bytes) -> None:
    """Take a receipt; `audit` verifies it, as entries and proofs are verified above."""
    _same(encode_receipt(parse_receipt(raw)), raw)


def _check_envelope(envelope: Envelope) -> None:
    parse_content(envelope)
    for signature in envelope.signatures:
        key = _WORLD.writers.get(signature.key_id)
        if key is not None:
            verify_single(envelope, key)
            assert _WORLD.envelopes.get(envelope.digest) == envelope, "a signature holds for what was never signed"


def _text(raw: bytes) -> str:
    # Bytes become text where they arrive, and these do not: the parsers of text take what is text.
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise MalformedError("not text") from None


def _number(raw: bytes, at: int, width: int) -> int:
    return int.from_bytes(raw[at : at + width], "big")


def _hashes(raw: bytes) -> tuple[Digest, ...]:
    return tuple(Digest(raw[at : at + 32]) for at in range(0, len(raw), 32))
