"""The log's keys, and the promise never to sign two checkpoints that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfrl_secure.clock import FixedClock
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import MalformedError, UncertainStateError
from sfrl_secure.ids import sha256
from sfrl_secure.sequencer.log_keys import LogKeys, parse_log_keys
from sfrl_secure.sequencer.signing import CheckpointSigner, SignedHead, check_ours
from sfrl_secure.storage.log_folder import FolderSignedNote
from sfrl_secure.storage.log_store import NOTHING_SIGNED
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy
from sfrl_secure.translog.tree import MerkleTree

ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"


def make_signer(*generations: LogKeys, origin: str = ORIGIN) -> CheckpointSigner:
    return CheckpointSigner(origin, generations, FixedClock(1_760_000_000_000_000))


def make_policy(*generations: LogKeys, origin: str = ORIGIN) -> TrustPolicy:
    keys = tuple(key for each in generations for key in (each.note_signer(origin).key, each.cosigner(origin).key))
    return TrustPolicy((TrustedLog(origin, keys),), (), (), "none")


def test_a_checkpoint_bears_both_lines_and_opens_under_the_policy() -> None:
    keys = LogKeys.generate()
    opened = open_checkpoint(make_signer(keys).sign(3, sha256(b"root")), make_policy(keys), quorum=False)
    assert (opened.checkpoint.size, opened.checkpoint.root) == (3, sha256(b"root"))
    ((signer, cosigner),) = make_signer(keys).generations
    assert (signer.vkey, cosigner.vkey) == keys.vkeys(ORIGIN)


def test_a_log_that_replaces_its_keys_signs_with_every_generation() -> None:
    old, new = LogKeys.generate(), LogKeys.generate()
    signer = make_signer(old, new)
    note = signer.sign(3, sha256(b"root"))
    assert [(line.name, line.key_id) for line in parse_note(note).signatures] == [
        (key.name, key.key_id) for pair in signer.generations for key in pair
    ]
    for policy in (make_policy(old), make_policy(new), make_policy(old, new)):
        assert open_checkpoint(note, policy, quorum=False).is_current


def test_a_log_without_keys_signs_nothing() -> None:
    with pytest.raises(MalformedError):
        make_signer()


def test_a_note_that_was_kept_before_the_keys_were_replaced_is_ours_still() -> None:
    old, new = LogKeys.generate(), LogKeys.generate()
    tree = MerkleTree(leaf_hash(b"%d" % i) for i in range(5))
    note = make_signer(old).sign(5, tree.root())
    assert not check_ours(note, ORIGIN, make_policy(old, new), tree).is_current
    with pytest.raises(UncertainStateError, match="our signatures"):
        check_ours(note, ORIGIN, make_policy(new), tree)


@pytest.mark.parametrize(("size", "root"), [(2, b"root"), (2, b"other"), (3, b"other")])
def test_nothing_that_contradicts_the_last_one_is_signed(size: int, root: bytes) -> None:
    signer = make_signer(LogKeys.generate())
    signer.sign(3, sha256(b"root"))
    with pytest.raises(UncertainStateError):
        signer.sign(size, sha256(root))
    signer.sign(3, sha256(b"root"))
    signer.sign(4, sha256(b"larger"))


def test_keys_come_back_from_their_file_and_do_not_print() -> None:
    keys = LogKeys.generate()
    again = parse_log_keys(keys.to_pem())
    assert again.vkeys(ORIGIN) == keys.vkeys(ORIGIN)
    assert "PRIVATE" not in repr(keys) + repr(keys.to_pem())


def bad_key_files() -> dict[str, bytes]:
    pem = LogKeys.generate().to_pem().expose()
    end = b"-----END PRIVATE KEY-----\n"
    first, second, _ = pem.split(end)
    return {
        "empty": b"",
        "the first only": first + end,
        "the second only": second + end,
        "the other order": second + end + first + end,
        "more behind": pem + b"\n",
        "more before": b"\n" + pem,
        "more between": first + end + b"\n" + second + end,
        "three keys": pem + first + end,
        "two of one sort": 2 * SigningKey.generate("ed25519").to_pem().expose(),
        "rubbish": b"\xff" * 100,
        "damaged": pem[:100] + b"!" + pem[101:],
    }


@pytest.mark.parametrize("name", bad_key_files())
def test_a_file_that_is_not_exactly_the_two_keys_is_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_log_keys(SecretBytes(bad_key_files()[name]))


def test_a_kept_note_is_one_that_the_tree_still_holds(tmp_path: Path) -> None:
    keys = LogKeys.generate()
    tree = MerkleTree(leaf_hash(b"%d" % i) for i in range(5))
    path = tmp_path / "signed"
    path.write_bytes(NOTHING_SIGNED)
    head = SignedHead(FolderSignedNote(path))
    head.check(ORIGIN, make_policy(keys), tree)
    signer = make_signer(keys)
    head.keep(signer.sign(5, tree.root()))
    assert path.stat().st_mode & 0o777 == 0o600

    def check(later: MerkleTree) -> None:
        SignedHead(FolderSignedNote(path)).check(ORIGIN, make_policy(keys), later)

    for size in (5, 6):
        check(MerkleTree(leaf_hash(b"%d" % i) for i in range(size)))
    with pytest.raises(UncertainStateError, match="more entries"):
        check(MerkleTree(leaf_hash(b"%d" % i) for i in range(4)))
    with pytest.raises(UncertainStateError, match="another root"):
        check(MerkleTree(leaf_hash(b"other %d" % i) for i in range(5)))
    path.unlink()
    with pytest.raises(UncertainStateError, match="missing"):
        check(tree)


def test_a_note_that_somebody_else_put_there_stops_the_keeping(tmp_path: Path) -> None:
    path = tmp_path / "signed"
    path.write_bytes(NOTHING_SIGNED)
    kept = FolderSignedNote(path)
    kept.read()
    head = SignedHead(kept)
    head.keep(b"ours\n")
    head.keep(b"ours\n")
    path.write_bytes(b"theirs\n")
    with pytest.raises(UncertainStateError):
        head.keep(b"ours, newer\n")
    assert path.read_bytes() == b"theirs\n"


def test_a_note_under_other_keys_or_of_another_log_is_not_ours() -> None:
    keys = LogKeys.generate()
    tree = MerkleTree([leaf_hash(b"0")])
    note = make_signer(keys).sign(1, tree.root())
    check_ours(note, ORIGIN, make_policy(keys), tree)
    with pytest.raises(UncertainStateError, match="signatures"):
        check_ours(note, ORIGIN, make_policy(LogKeys.generate()), tree)
    with pytest.raises(UncertainStateError, match="signatures"):
        check_ours(b"rubbish", ORIGIN, make_policy(keys), tree)
    with pytest.raises(UncertainStateError, match="another log"):
        check_ours(note, "another.example/log", make_policy(keys), tree)
