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
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy
from sfrl_secure.translog.tree import MerkleTree

ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"


def make_signer(keys: LogKeys, origin: str = ORIGIN) -> CheckpointSigner:
    return CheckpointSigner(keys.note_signer(origin), keys.cosigner(origin), FixedClock(1_760_000_000_000_000))


def make_policy(keys: LogKeys, origin: str = ORIGIN) -> TrustPolicy:
    log = TrustedLog(origin, (keys.note_signer(origin).key, keys.cosigner(origin).key))
    return TrustPolicy((log,), (), (), "none")


def test_a_checkpoint_bears_both_lines_and_opens_under_the_policy() -> None:
    keys = LogKeys.generate()
    opened = open_checkpoint(make_signer(keys).sign(3, sha256(b"root")), make_policy(keys), quorum=False)
    assert (opened.checkpoint.size, opened.checkpoint.root) == (3, sha256(b"root"))
    assert make_signer(keys).vkeys == keys.vkeys(ORIGIN)


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
    head = SignedHead(tmp_path)
    head.check(ORIGIN, make_policy(keys), tree)
    signer = make_signer(keys)
    head.keep(signer.sign(5, tree.root()))
    assert (tmp_path / "signed").stat().st_mode & 0o777 == 0o600
    for size, opens in ((5, True), (6, True), (4, False)):
        later = MerkleTree(leaf_hash(b"%d" % i) for i in range(size))
        if opens:
            SignedHead(tmp_path).check(ORIGIN, make_policy(keys), later)
        else:
            with pytest.raises(UncertainStateError, match="more entries"):
                SignedHead(tmp_path).check(ORIGIN, make_policy(keys), later)
    other = MerkleTree(leaf_hash(b"other %d" % i) for i in range(5))
    with pytest.raises(UncertainStateError, match="another root"):
        SignedHead(tmp_path).check(ORIGIN, make_policy(keys), other)


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
