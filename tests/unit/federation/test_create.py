"""A new federation's folder: whose files they are, what they say, and that its log has no void entry."""

from __future__ import annotations

import stat
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.audit.profile import read_auditor_profile
from sfrl_secure.clock import SystemClock
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.ids import parse_spiffe_id, sha256
from sfrl_secure.participant.profile import read_profile
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.sequencer.bootstrap import Folds, open_log
from sfrl_secure.services.audit_log.wiring import CODEC
from sfrl_secure.services.config import (
    AggregatorConfig,
    AuditLogConfig,
    GatekeeperConfig,
    VerifierConfig,
    read_config,
)
from sfrl_secure.services.federation.create import create_federation
from sfrl_secure.services.federation.folder import FederationFolder, read_index, toml_of
from sfrl_secure.services.following import log_vkeys_of
from sfrl_secure.storage.index import SqliteStatements
from sfrl_secure.storage.log_folder import FolderLogStore
from sfrl_secure.storage.objects import ObjectStore
from sfrl_secure.translog.policy import parse_trust_policy

KINDS = {
    "verifier": VerifierConfig,
    "audit_log": AuditLogConfig,
    "gatekeeper": GatekeeperConfig,
    "aggregator": AggregatorConfig,
}


def history_of(federation):
    policy = parse_trust_policy(federation.folder.trust_policy.read_bytes())
    with tempfile.TemporaryDirectory() as name, ExitStack() as closing:
        scratch = Path(name)
        index = SqliteStatements(scratch / "statements.sqlite")
        closing.callback(index.close)
        store = FolderLogStore.open(federation.folder.journal_dir, scratch / "log")
        closing.callback(store.close)
        fold = FederationFold(federation.origin, log_vkeys_of(policy, federation.origin), index)
        folds = Folds(lambda: fold, lambda _: fold)
        return fold, open_log(store, folds, CODEC, SystemClock(), index, None).history


def test_every_file_of_keys_is_its_owners_alone_and_so_is_every_folder(federation) -> None:
    root = federation.folder.root
    keys = [path for path in root.rglob("*") if path.suffix in (".key", ".pem")]
    # Operators, participants, services and the auditor sign and talk; two CAs; the log, and the witness with two.
    assert len(keys) == 2 * (3 + 4 + 5 + 1) + 2 + 3
    for path in keys:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in (root, *root.rglob("*")):
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_no_private_key_lies_in_another_file(federation) -> None:
    for path in federation.folder.root.rglob("*"):
        if path.is_file() and path.suffix != ".key":
            assert b"PRIVATE KEY" not in path.read_bytes(), path


def test_the_log_folds_without_a_void_entry_and_every_document_is_in_force(federation, plan) -> None:
    fold, history = history_of(federation)
    assert history.void_entries == 0
    assert history.size == fold.state.size == federation.log_size
    state = fold.state
    assert state.root is not None
    assert sha256(state.root.raw) == state.federation_id == federation.federation_id
    assert set(state.segments) == {"example"}
    now_us = SystemClock().now_us()
    assert all(state.is_active(each.name, now_us) for each in plan.participants)
    assert state.rules(now_us) is not None


def test_everybody_has_an_identity_in_the_log_that_is_its_certificates(federation, plan) -> None:
    fold, _ = history_of(federation)
    issued = {str(each.spiffe_id) for each in fold.state.identities.values()}
    domain = plan.trust_domain
    wanted = {
        *(f"spiffe://{domain}/operator/{name}" for name in plan.operators),
        *(f"spiffe://{domain}/participant/{each.name}" for each in plan.participants),
        *(f"spiffe://{domain}/service/gatekeeper/{name}" for name in plan.gatekeepers),
        f"spiffe://{domain}/service/aggregator/{plan.aggregator}",
        f"spiffe://{domain}/service/audit_log/{plan.audit_log}",
        f"spiffe://{domain}/service/verifier/{plan.verifier}",
        f"spiffe://{domain}/auditor/{plan.auditor}",
    }
    assert issued == wanted
    assert all(str(parse_spiffe_id(each)) == each for each in issued)


@pytest.mark.parametrize("role", ["gatekeeper", "verifier"])
def test_a_service_does_not_start_as_another(federation, role: str) -> None:
    """The aggregator's certificate and key make no gatekeeper."""
    services = {each["role"]: each["name"] for each in read_index(federation.folder)["services"]}
    path = federation.folder.service(role, services[role]) / "config.toml"
    other = federation.folder.service("aggregator", services["aggregator"])
    config = read_config(path, KINDS[role])
    pair = {"certificate": other / "tls.crt", "key": other / "tls.key"}
    borrowed = config.model_copy(update={"tls": config.tls.model_copy(update=pair)})
    with pytest.raises(MalformedError, match=f"not that of spiffe://.*/service/{role}/{services[role]}"):
        borrowed.read_tls()


def test_every_service_configuration_is_read_by_its_service(federation) -> None:
    services = read_index(federation.folder)["services"]
    assert sorted(each["role"] for each in services) == [
        "aggregator", "audit_log", "gatekeeper", "gatekeeper", "verifier",
    ]  # fmt: skip
    for each in services:
        config = read_config(
            federation.folder.service(each["role"], each["name"]) / "config.toml", KINDS[each["role"]]
        )
        assert (config.name, config.listen, config.origin) == (each["name"], each["address"], federation.origin)
        assert config.open_trust_policy().log(federation.origin) is not None
        assert b"BEGIN CERTIFICATE" in config.read_tls().chain
        assert config.federation_id == federation.federation_id.hex()
        assert config.read_client_roots().count(b"BEGIN CERTIFICATE") == 2
        assert config.read_service_roots().count(b"BEGIN CERTIFICATE") == 1
        assert config.signing is not None
        config.signing.open()


def test_every_participants_profile_is_read_by_the_sdk_and_names_all_gatekeepers(federation, plan) -> None:
    for each in plan.participants:
        profile = read_profile(federation.folder.participant(each.name) / "profile.toml")
        assert profile.open_signing_key().public_key.suite == each.suite
        assert list(profile.gatekeepers) == list(federation.addresses.gatekeepers.values())
        profile.open_tls()
        profile.open_trust_policy()


def test_the_base_model_of_a_segment_is_stored_under_the_name_that_its_terms_have(
    plan, tmp_path: Path
) -> None:
    segment = plan.segments[0]
    values = np.arange(segment.manifest.coordinates, dtype=np.int64)
    model = ModelSnapshot(segment.manifest, segment.grid_exponent, values)
    made = create_federation(tmp_path / "new", plan, SystemClock(), {segment.name: model})
    fold, _ = history_of(made)
    name = fold.state.segments[segment.name].terms.model.initial
    assert ObjectStore(made.folder.objects_dir).get(name, 2**20) == model.to_bytes()


def test_two_federations_of_one_plan_share_nothing(federation, plan, tmp_path: Path) -> None:
    other = create_federation(tmp_path / "new", plan, SystemClock())
    assert other.federation_id != federation.federation_id
    keys = {path.read_bytes() for path in federation.folder.root.rglob("*.key")}
    assert keys.isdisjoint(path.read_bytes() for path in other.folder.root.rglob("*.key"))


def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(plan, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(MalformedError, match="not empty"):
        create_federation(tmp_path, plan, SystemClock())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": 4}, "the plan's threshold"),
        ({"operators": ["alice", "alice", "bob"]}, "the plan's operators"),
        ({"gatekeepers": []}, "the plan's gatekeepers: there is at least one"),
        ({"gatekeepers": ["gatekeeper-1", "gatekeeper-1"]}, "the plan's gatekeepers"),
        ({"participants": "twice"}, "the plan's participants"),
        ({"segments": "twice"}, "the plan's segments"),
        ({"trust_domain": "no domain"}, "trust domain"),
        ({"log_host": "no host"}, "log_host"),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_is_refused_before_anything_is_made(plan, tmp_path: Path, change, said: str) -> None:
    for key in ("participants", "segments"):
        if change.get(key) == "twice":
            change = {key: [getattr(plan, key)[0]] * 2}
    with pytest.raises(MalformedError, match=said):
        create_federation(tmp_path / "new", plan.model_copy(update=change), SystemClock())
    assert not (tmp_path / "new").exists()


def test_a_folder_without_an_index_is_no_federation(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="sfrl init"):
        read_index(FederationFolder(tmp_path))


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b"{"])
def test_an_index_that_is_not_one_json_object_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "federation.json").write_bytes(raw)
    with pytest.raises(MalformedError):
        read_index(FederationFolder(tmp_path))


def test_configurations_are_written_as_toml_that_reads_back() -> None:
    import tomllib

    values = {
        "text": 'quote " and \\ and \u00e9 and \x07',
        "number": 1.5,
        "list": ["a", "b"],
        "table": {"inner": "x", "flag": True},
        "tables": [{"a": 1}, {"a": 2}],
    }
    assert tomllib.loads(toml_of(values).decode()) == values


def test_a_profile_opens_its_own_certificate_with_its_own_key(federation, plan) -> None:
    """TLS libraries would say so only when a handshake fails, and not which file it was."""
    first, second = (
        read_profile(federation.folder.participant(each.name) / "profile.toml")
        for each in plan.participants[:2]
    )
    assert first.open_tls().chain != second.open_tls().chain
    whole = {"certificate": second.certificate, "tls_key": second.tls_key}
    with pytest.raises(MalformedError, match=f"not that of spiffe://.*/participant/{first.name}"):
        first.model_copy(update=whole).open_tls()
    with pytest.raises(MalformedError, match="not that of the certificate"):
        first.model_copy(update={"tls_key": second.tls_key}).open_tls()
    with pytest.raises(MalformedError, match="not that of the certificate"):
        first.model_copy(update={"tls_key": first.signing_key}).open_tls()


def test_the_auditors_profile_opens_and_names_log_gatekeepers_and_the_public_address(federation, plan) -> None:
    folder = federation.folder.auditor(plan.auditor)
    profile = read_auditor_profile(folder / "profile.toml")
    profile.open_tls()
    assert profile.open_trust_policy().log(federation.origin) is not None
    assert profile.audit_log == federation.addresses.audit_log
    assert profile.gatekeepers == tuple(federation.addresses.gatekeepers.values())
    config = read_config(federation.folder.service("audit_log", plan.audit_log) / "config.toml", AuditLogConfig)
    assert config.public_listen == federation.addresses.public_log
    assert profile.public_log == f"http://{config.public_listen}"
