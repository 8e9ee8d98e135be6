"""The log of a federation gets new keys: by steps that can be repeated, and that lose nobody's receipts."""

from __future__ import annotations

import shutil
import stat
import threading
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from sfrl_secure.clock import FixedClock
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError, SignatureError, UncertainStateError
from sfrl_secure.ids import sha256
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.sequencer.witness_client import HttpWitness
from sfrl_secure.services.audit_log.trust import LogTrust, open_trust
from sfrl_secure.services.config import LOG_GENERATIONS_MAX, AuditLogConfig, VerifierConfig, read_config
from sfrl_secure.services.federation import rotate as module
from sfrl_secure.services.federation.folder import FederationFolder
from sfrl_secure.services.federation.rotate import retire_log_keys, rotate_log_keys
from sfrl_secure.services.following import log_vkeys_of
from sfrl_secure.services.verifier.wiring import open_verifier
from sfrl_secure.storage import log_bucket
from sfrl_secure.storage.files import FolderLock
from sfrl_secure.storage.log_bucket import BucketLogStore
from sfrl_secure.storage.log_folder import SIGNED_NAME
from sfrl_secure.storage.log_store import NOTHING_SIGNED
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import sign_checkpoint
from sfrl_secure.translog.merkle import EMPTY_ROOT
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import parse_trust_policy
from sfrl_secure.translog.witness import AddCheckpointRequest, format_add_checkpoint

CLOCK = FixedClock(1_780_000_000_000_000)
ROOT = sha256(b"root")


@pytest.fixture
def folder(federation, tmp_path: Path) -> FederationFolder:
    """A copy of the federation that a test changes."""
    return FederationFolder(shutil.copytree(federation.folder.root, tmp_path / "fed"))


def config_path(folder: FederationFolder) -> Path:
    (found,) = (folder.root / "services").glob("audit_log-*/config.toml")
    return found


def config_of(folder: FederationFolder) -> AuditLogConfig:
    return read_config(config_path(folder), AuditLogConfig)


def trust_of(folder: FederationFolder) -> LogTrust:
    """What the log would start with."""
    return open_trust(config_of(folder), CLOCK)


def sign(folder: FederationFolder) -> bytes:
    return trust_of(folder).signer.sign(5, ROOT)


def run_once(folder: FederationFolder) -> None:
    """What a start of the log leaves of interest here: a signed note."""
    (folder.journal_dir / SIGNED_NAME).write_bytes(sign(folder))


def test_a_generation_is_not_retired_before_the_next_one_has_signed(folder: FederationFolder) -> None:
    rotate_log_keys(folder)
    before = config_path(folder).read_bytes()
    old = LogKeys.generate()
    origin = config_of(folder).origin
    foreign = sign_checkpoint(Checkpoint(origin, 5, ROOT), old.note_signer(origin), old.cosigner(origin), 5)
    for note in (NOTHING_SIGNED, foreign):
        (folder.journal_dir / SIGNED_NAME).write_bytes(note)
        with pytest.raises(DeniedError, match=r"generation 2 has signed nothing yet: .* before generation 1 "):
            retire_log_keys(folder)
    assert config_path(folder).read_bytes() == before
    run_once(folder)
    assert retire_log_keys(folder).name == "log.key"


def test_a_log_in_a_bucket_is_asked_there_what_it_has_signed(
    folder: FederationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate_log_keys(folder)
    bucket = MemoryStore()
    monkeypatch.setattr(log_bucket, "open_bucket", lambda url: (bucket, url.rpartition("/")[2]))
    run_once(folder)
    note = (folder.journal_dir / SIGNED_NAME).read_bytes()
    path = config_path(folder)
    path.write_text('log_url = "s3://bucket/log"\n' + path.read_text())
    BucketLogStore.create(bucket, "log", [[b"entry"]])
    with pytest.raises(DeniedError, match="generation 2"):
        retire_log_keys(folder)
    store = BucketLogStore.open(bucket, "log")
    store.signed.replace(note)
    store.close()
    assert retire_log_keys(folder).name == "log.key"


def test_a_new_generation_signs_beside_the_old_and_is_the_newest_of_the_policy(folder: FederationFolder) -> None:
    before, genesis = sign(folder), trust_of(folder).genesis_vkeys
    old_policy = trust_of(folder).policy
    made = rotate_log_keys(folder)
    assert (made.generations, made.signing, made.trust_policy.samefile(folder.trust_policy)) == (2, 2, True)
    assert stat.S_IMODE(made.key_file.stat().st_mode) == 0o600

    after, new_policy = sign(folder), trust_of(folder).policy
    for policy in (old_policy, new_policy):
        assert open_checkpoint(after, policy, quorum=False).is_current
    assert not open_checkpoint(before, new_policy, quorum=False, archived=True).is_current
    with pytest.raises(SignatureError):
        open_checkpoint(before, new_policy, quorum=False)
    # Genesis names the first generation, whichever signs.
    assert trust_of(folder).genesis_vkeys == genesis == log_vkeys_of(new_policy, config_of(folder).origin)

    run_once(folder)
    assert retire_log_keys(folder).name == "log.key"
    alone = sign(folder)
    assert open_checkpoint(alone, new_policy, quorum=False).is_current
    with pytest.raises(SignatureError):
        open_checkpoint(alone, old_policy, quorum=False)
    assert trust_of(folder).genesis_vkeys == genesis
    with pytest.raises(MalformedError, match="one generation"):
        retire_log_keys(folder)


def test_all_else_in_the_two_files_stays_as_its_owner_wrote_it(folder: FederationFolder) -> None:
    path = config_path(folder)
    path.write_text("# mine: \u2028 log_keys\n" + path.read_text())
    text = folder.trust_policy.read_text()
    words = text.replace("group verifier 2 ", "group\tverifier all ").replace("quorum", "# and\n\nquorum")
    folder.trust_policy.write_text("# handed over by hand \u00a0 log \u2028 log\n" + words)
    config, policy = path.read_text(), folder.trust_policy.read_text()
    rotate_log_keys(folder)
    changed = folder.trust_policy.read_text()
    new = [line for line in changed.split("\n") if line not in policy.split("\n")]
    assert [line.split()[0] for line in new] == ["log", "log"]
    assert changed.replace("\n".join(new) + "\n", "") == policy
    assert path.read_text() == config.replace('log_keys = ["log.key"]', 'log_keys = ["log.key", "log-2.key"]')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_url_of_the_log_stands_on_the_new_lines_too(folder: FederationFolder) -> None:
    lines = folder.trust_policy.read_text().split("\n")
    lines = [f"{line} https://log.example/" if line.startswith("log ") else line for line in lines]
    folder.trust_policy.write_text("\n".join(lines))
    rotate_log_keys(folder)
    assert folder.trust_policy.read_text().count(" https://log.example/\n") == 4


@pytest.mark.parametrize("step", ["_write_log_keys", "_add_to_policy"])
def test_what_was_interrupted_is_finished_by_the_next_call_with_the_same_keys(
    folder: FederationFolder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, step, fail)
    with pytest.raises(KeyboardInterrupt):
        rotate_log_keys(folder)
    monkeypatch.undo()
    made_before = (config_path(folder).parent / "log-2.key").read_bytes()
    if step == "_add_to_policy":
        # Half done, nothing is signed, and nothing retired.
        with pytest.raises(MalformedError, match="newest generations"):
            trust_of(folder)
        with pytest.raises(MalformedError, match="rotate once more"):
            retire_log_keys(folder)
    made = rotate_log_keys(folder)
    assert (made.key_file.name, made.generations, made.signing) == ("log-2.key", 2, 2)
    assert made.key_file.read_bytes() == made_before
    sign(folder)


def test_rotations_follow_each_other_up_to_the_bound(folder: FederationFolder) -> None:
    for number in range(2, LOG_GENERATIONS_MAX + 1):
        assert rotate_log_keys(folder).signing == number
    with pytest.raises(MalformedError, match="retire the oldest"):
        rotate_log_keys(folder)
    run_once(folder)
    retire_log_keys(folder)
    made = rotate_log_keys(folder)
    assert (made.key_file.name, made.generations, made.signing) == ("log-5.key", 5, 4)
    assert len(sign(folder)) < 16 * 1024


def test_the_keys_of_a_running_log_are_not_replaced(folder: FederationFolder) -> None:
    files = [config_path(folder).read_bytes(), folder.trust_policy.read_bytes()]
    with FolderLock(folder.journal_dir):
        for change in (rotate_log_keys, retire_log_keys):
            with pytest.raises(MalformedError, match="running"):
                change(folder)
    assert [config_path(folder).read_bytes(), folder.trust_policy.read_bytes()] == files
    assert not (config_path(folder).parent / "log-2.key").exists()


def test_a_configuration_that_was_laid_out_anew_is_left_alone(folder: FederationFolder) -> None:
    path = config_path(folder)
    path.write_text(path.read_text().replace('["log.key"]', '[\n  "log.key",\n]'))
    with pytest.raises(MalformedError, match="one line"):
        rotate_log_keys(folder)
    trust_of(folder)


def test_keys_that_the_policy_has_already_are_no_new_generation(folder: FederationFolder) -> None:
    keys = config_path(folder).parent
    shutil.copy(keys / "log.key", keys / "log-2.key")
    with pytest.raises(MalformedError, match="already"):
        rotate_log_keys(folder)


def test_a_policy_whose_keys_are_not_pairs_is_not_added_to(folder: FederationFolder) -> None:
    lines = folder.trust_policy.read_text().split("\n")
    folder.trust_policy.write_text("\n".join(lines[:1] + lines[2:]))
    with pytest.raises(MalformedError, match="Ed25519 and an ML-DSA-44"):
        rotate_log_keys(folder)


def test_a_folder_that_is_no_federation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        rotate_log_keys(FederationFolder(tmp_path))


def test_the_verifier_of_a_new_federation_cosigns_over_http_with_both_its_keys(folder: FederationFolder) -> None:
    (path,) = (folder.root / "services").glob("verifier-*/config.toml")
    uncertain: list[UncertainStateError] = []
    config = read_config(path, VerifierConfig)
    service = open_verifier(config, CLOCK, threading.Event(), on_uncertain=uncertain.append)
    service.start()
    try:
        endpoint = config_of(folder).witnesses[0]
        witness = HttpWitness(endpoint.names, endpoint.submission_url, endpoint.monitoring_url)
        trust = trust_of(folder)
        origin = config_of(folder).origin
        assert witness.latest(origin).status == 404
        note = trust.signer.sign(0, EMPTY_ROOT)
        reply = witness.add_checkpoint(format_add_checkpoint(AddCheckpointRequest(0, (), note)))
        assert reply.status == 200
        policy = parse_trust_policy(folder.trust_policy.read_bytes())
        opened = open_checkpoint(note + reply.body, policy, quorum=True)
        assert opened.witness_times.keys() == set(endpoint.names)
        assert opened.witness_times.keys() == {"verifier-witness", "verifier-witness-ml-dsa"}
        assert witness.latest(origin).body == note + reply.body
    finally:
        service.stop()
    assert uncertain == []
