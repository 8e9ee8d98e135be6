"""The liars: each a real client on the wire, each to be refused for its own reason.

They act in one round, while a rover holds its signed update back. Mallory is a participant like the others; a rover
went bad; a ghost has a certificate of the right CA that no entry names; an operator acts alone.

Runs in: demo.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import signing_key_from_pem
from sfrl_secure.crypto.x509 import CertificateAuthority, generate_tls_key
from sfrl_secure.demo import payloads
from sfrl_secure.demo.federation import LIAR, ROVERS, SEGMENT
from sfrl_secure.demo.rover import HELD_NAME, SENT_NAME
from sfrl_secure.errors import DeniedError, SfrlError
from sfrl_secure.governance.build import build_terms
from sfrl_secure.governance.statements import UPDATE_TYPE, UpdateStatement
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import parse_spiffe_id
from sfrl_secure.participant.profile import read_profile
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.sending import ClaimedPayload
from sfrl_secure.rpc.channel import ClientTls, RpcChannel
from sfrl_secure.rpc.clients import AuditLogClient
from sfrl_secure.services.federation.folder import FederationFolder, read_index
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.gatekeeper_service import RoundRequest
from sfrl_secure.wire.statements import encode_update as encode_statement
from sfrl_secure.wire.uploads import FIRST_REQUEST_BYTES_MAX, SUBMIT_UPDATE, Chunk, encode_upload_start

_FILE_BYTES_MAX = 64 * 1024
_CALL_SECONDS = 20.0
_HOUR_US = 3_600_000_000

HOLDER, BAD_ROVER = ROVERS[0], ROVERS[1]
"""Who holds its update back in the liars' round, and who sends a second one."""


@dataclass(frozen=True, slots=True)
class Lie:
    """What a liar did and what came of it.

    Attributes:
        expected: the reason code that it should be refused for.
        got: the reason code that it was refused for; `accepted` would be a hole.
        entry_index: leaf index of the refusal; None where it is counted.
    """

    name: str
    expected: str
    got: str
    entry_index: int | None


class Liars:
    """All liars, over one federation's folder. Needs the round that is open and held, and the one before it."""

    def __init__(self, folder: FederationFolder, held: OpenRound, closed: OpenRound) -> None:
        self._folder = folder
        self._held = held
        self._closed = closed
        self._terms = held.terms
        self._coordinates = held.terms.model.manifest.coordinates
        self._grid = held.terms.model.grid_exponent

    def run(self) -> Iterator[Lie]:
        """Let each lie, one after the other."""
        with self._participant(LIAR) as mallory, self._participant(BAD_ROVER) as bad_rover:
            for name, expected, act in self._acts(mallory, bad_rover):
                try:
                    act()
                except DeniedError as refused:
                    yield Lie(name, expected, refused.reason, refused.entry_index)
                except SfrlError as failed:
                    yield Lie(name, expected, type(failed).__name__, None)
                else:
                    yield Lie(name, expected, "accepted", None)

    def _acts(
        self, mallory: Participant, bad_rover: Participant
    ) -> list[tuple[str, str, Callable[[], object]]]:
        n, grid, limits = self._coordinates, self._grid, self._terms.limits
        small = payloads.honest(n, 5, grid)
        again = ClaimedPayload(small, 5, 100, value_type="fp32")

        def bent(payload: bytes, nonzeros: int = 5, weight: int = 100, *, value_type: str = "fp32") -> object:
            claimed = ClaimedPayload(
                payload, nonzeros, weight, value_type=value_type, root=payloads.root_of(payload)
            )
            return mallory.submit_payload(self._held, claimed)

        dense = min(10 * limits.nonzeros_max, n)
        return [
            ("a certificate of the right CA that no entry names", "unknown_identity", self._be_a_ghost),
            ("a valid certificate with somebody else's signing key", "bad_signature",
             lambda: self._sign_with_stolen_key(mallory)),
            ("another rover's update, sent before its owner's", "wrong_peer", self._send_held_update),
            ("another rover's admitted update, sent again", "replayed", self._send_admitted_update),
            ("a second, newly signed update for the round", "duplicate",
             lambda: bad_rover.submit_payload(self._held, again)),
            ("an update for a closed round", "round_not_open",
             lambda: mallory.submit_payload(self._closed, again)),
            ("NaN values", "not_finite", lambda: bent(payloads.with_nan(n, grid))),
            ("a support that is not canonical", "not_canonical",
             lambda: bent(payloads.with_padding_bit(n, grid), value_type="int8")),
            ("an index beyond the tensor", "out_of_range", lambda: bent(payloads.with_index_beyond(n, grid))),
            ("a payload ten times denser than the terms allow", "too_dense",
             lambda: bent(payloads.honest(n, dense, grid, value_type="int8"), dense, value_type="int8")),
            ("a norm of 1e6", "norm_limit", lambda: bent(payloads.honest(n, 400, grid, value=50_000.0), 400)),
            ("a weight of zero", "weight_limit", lambda: bent(small, weight=0)),
            ("a weight over the bound", "weight_limit", lambda: bent(small, weight=limits.weight_max + 1)),
            ("a payload whose header claims 2^40 coordinates", "payload_shape",
             lambda: bent(payloads.claiming(small, 2**40))),
            ("segment terms signed by one operator only", "threshold", self._publish_alone),
        ]  # fmt: skip

    # Who acts

    @contextmanager
    def _participant(self, name: str) -> Iterator[Participant]:
        with Participant.from_profile(self._folder.participant(name) / "profile.toml") as participant:
            yield participant

    @contextmanager
    def _door(self, name: str) -> Iterator[RpcChannel]:
        """The gatekeeper's door, under a participant's certificate, for ready bytes."""
        profile = read_profile(self._folder.participant(name) / "profile.toml")
        with RpcChannel(
            profile.gatekeepers[0], role="gatekeeper", trust_domain=profile.trust_domain, tls=profile.open_tls()
        ) as channel:
            yield channel

    # What they do

    def _be_a_ghost(self) -> None:
        profile = read_profile(self._folder.participant(LIAR) / "profile.toml")
        authority = CertificateAuthority.from_pem(
            read_bounded(self._folder.root / "ca" / "client.crt", _FILE_BYTES_MAX),
            read_secret(self._folder.root / "ca" / "client.key"),
        )
        key, spki = generate_tls_key()
        now_us = SystemClock().now_us()
        certificate = authority.issue_svid(
            parse_spiffe_id(f"spiffe://{profile.trust_domain}/participant/{LIAR}"), spki,
            not_before_us=now_us - _HOUR_US, not_after_us=now_us + _HOUR_US,
        )  # fmt: skip
        tls = replace(profile.open_tls(), key=key, chain=certificate)
        with RpcChannel(
            profile.gatekeepers[0], role="gatekeeper", trust_domain=profile.trust_domain, tls=tls
        ) as channel:
            request = wire.encode_round_request(RoundRequest(SEGMENT, 0, 0))
            channel.call(wire.GET_ROUND, request, deadline_seconds=_CALL_SECONDS)

    def _sign_with_stolen_key(self, mallory: Participant) -> None:
        stolen = signing_key_from_pem("ed25519", read_secret(self._folder.participant(BAD_ROVER) / "signing.key"))
        payload = payloads.honest(self._coordinates, 5, self._grid)
        honest: UpdateStatement = mallory.update_of(
            self._held, ClaimedPayload(payload, 5, 100, value_type="fp32")
        )
        statement = encode_statement(replace(honest, key_id=stolen.public_key.key_id))
        self._send(encode_upload_start(sign_envelope(UPDATE_TYPE, statement, [stolen]), Chunk(0, payload)))

    def _send_held_update(self) -> None:
        self._send_request_of(HOLDER, HELD_NAME)

    def _send_admitted_update(self) -> None:
        self._send_request_of(BAD_ROVER, SENT_NAME)

    def _send_request_of(self, owner: str, name: str) -> None:
        self._send(read_bounded(self._folder.participant(owner) / name, FIRST_REQUEST_BYTES_MAX))

    def _send(self, request: bytes) -> None:
        """Send ready bytes as the one request of an upload, under the liar's certificate."""
        with self._door(LIAR) as channel:
            for _ in channel.exchange(SUBMIT_UPDATE, iter([request]), deadline_seconds=_CALL_SECONDS):
                pass

    def _publish_alone(self) -> None:
        index = read_index(self._folder)
        operator = self._folder.operator(index["operators"][0])
        key = signing_key_from_pem("ed25519", read_secret(operator / "signing.key"))
        terms = self._terms
        document = build_terms(
            federation_id=terms.federation_id,
            version=terms.version + 1,
            previous=terms.digest,
            expires_us=terms.expires_us,
            segment=SEGMENT,
            sensitivity=0,
            groups=terms.groups,
            model=terms.model,
            limits=replace(terms.limits, weight_max=1, norm_max=2**62),
            round_terms=terms.round,
            evidence_days=terms.evidence_days,
            retention_days=terms.retention_days,
        )
        tls = ClientTls(
            read_secret(operator / "tls.key"),
            read_bounded(operator / "tls.crt", _FILE_BYTES_MAX),
            read_bounded(self._folder.root / "ca" / "service.crt", _FILE_BYTES_MAX),
        )
        address = next(each["address"] for each in index["services"] if each["role"] == "audit_log")
        with RpcChannel(address, role="audit_log", trust_domain=index["trust_domain"], tls=tls) as channel:
            AuditLogClient(channel).append(sign_envelope(SegmentTerms.payload_type, document, [key]))
