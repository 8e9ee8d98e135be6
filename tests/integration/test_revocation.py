"""How long a revoked peer is still served: measured at two gatekeepers, on open connections with a stream under way.

A rover polls each gatekeeper and slowly reads a long model from each. One operator revokes it through the log; from the
acknowledgement on the clock runs until every gatekeeper has refused a call. Then the same for one TLS key of another
rover, and for gatekeepers that the log cannot reach any more.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from sfrl_secure.audit.profile import read_operator_profile
from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.errors import DeniedError, NotFoundError, SfrlError, UnavailableError
from sfrl_secure.operating.acts import draft_key_revocation, draft_participant_revocation
from sfrl_secure.operating.signing import SigningRequest
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.channel import RpcChannel
from sfrl_secure.rpc.clients import AuditLogClient
from sfrl_secure.services.federation.plan import TensorPlan
from sfrl_secure.wire import gatekeeper_service
from sfrl_secure.wire.downloads import FETCH_MODEL, ModelRequest, encode_model_request
from sfrl_secure.wire.gatekeeper_service import RoundRequest

from .conftest import ROVERS, SEGMENT, Site, Start, small_plan

GATEKEEPERS = ("g1", "g2")
NO_ROUND = gatekeeper_service.encode_round_request(RoundRequest(SEGMENT, 1_000, 0))
BOUND_SECONDS = 5.0
CHUNKS = 96
"""The model's length, in chunks of 1 MiB."""


@pytest.fixture(scope="module")
def site(start: Start) -> Site:
    plan = small_plan(gatekeepers=GATEKEEPERS)
    (segment,) = plan.segments
    long = segment.model_copy(update={"tensors": [TensorPlan(name="weight", shape=[CHUNKS * 128, 2048])]})
    made = start(plan.model_copy(update={"segments": [long]}))
    made.wait_published(lambda log: log.state.segments[SEGMENT].open_round is not None)
    return made


@dataclass
class Watch:
    """What one gatekeeper gives a rover from now on.

    Attributes:
        chunk_seconds: the rover takes so long to read a chunk.
        served: when the last call was answered; `denied` when the first was refused, `unavailable` when the first could
            not be decided.
        chunks: of the model that were read; `stream_ended` with what and when.
    """

    chunk_seconds: float
    served: float = 0.0
    denied: float = 0.0
    unavailable: float = 0.0
    reason: str = ""
    chunks: int = 0
    stream_error: SfrlError | None = None
    stream_ended: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)

    def poll(self, channel: RpcChannel) -> None:
        """Ask for a round that there is not, again and again: the answer is that there is none."""
        while not self.stopping.wait(0.02):
            try:
                # One attempt: a client would go on asking whoever is unavailable.
                channel.call(gatekeeper_service.GET_ROUND, NO_ROUND, deadline_seconds=2)
            except NotFoundError:
                self.served = time.monotonic()
            except DeniedError as refused:
                self.denied = self.denied or time.monotonic()
                self.reason = refused.reason
            except UnavailableError:
                self.unavailable = self.unavailable or time.monotonic()

    def read(self, channel: RpcChannel, model: ModelRequest) -> None:
        """Read a model slowly."""
        try:
            for _ in channel.stream(FETCH_MODEL, encode_model_request(model), deadline_seconds=600.0):
                self.chunks += 1
                if self.stopping.wait(self.chunk_seconds):
                    return
        except SfrlError as error:
            self.stream_error = error
        self.stream_ended = time.monotonic()


@contextmanager
def watched(site: Site, name: str, chunk_seconds: float) -> Iterator[dict[str, Watch]]:
    """A rover with an open connection, polls and a live stream at each gatekeeper."""
    tls = site.profile(name).open_tls()
    model = ModelRequest(SEGMENT, site.reading().state.segments[SEGMENT].terms.model.initial)
    watches = {gatekeeper: Watch(chunk_seconds) for gatekeeper in GATEKEEPERS}
    threads: list[threading.Thread] = []
    with ExitStack() as channels:
        for gatekeeper, watch in watches.items():
            address = site.federation.addresses.gatekeepers[gatekeeper]
            channel = RpcChannel(address, role="gatekeeper", trust_domain="sfrl.example", tls=tls)
            channels.enter_context(channel)
            threads += [
                threading.Thread(target=watch.poll, args=(channel,)),
                threading.Thread(target=watch.read, args=(channel, model)),
            ]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: all(each.chunks >= 2 and each.served for each in watches.values()))
            yield watches
        finally:
            for watch in watches.values():
                watch.stopping.set()
            for thread in threads:
                thread.join(10)


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it does not come to that"
        time.sleep(0.01)


def revoke(site: Site, draft: Callable[[FederationState, int], SigningRequest]) -> float:
    """Let one operator sign and append a revocation; when the log has acknowledged it."""
    profile = read_operator_profile(site.folder.operator("alice") / "profile.toml")
    request = draft(site.reading().state, time.time_ns() // 1_000)
    envelope = sign_envelope(request.payload_type, request.payload, [profile.open_signing_key()])
    with RpcChannel(
        profile.audit_log, role="audit_log", trust_domain=profile.trust_domain, tls=profile.open_tls()
    ) as channel:
        AuditLogClient(channel).append(envelope)
    return time.monotonic()


def stream_cut_at(site: Site, gatekeeper: str, name: str) -> float | None:
    """When a gatekeeper refused to go on with a rover's stream, in seconds since 1970, by its own log line.

    The reader learns of it later: what was on its way to it, tens of megabytes, is read yet.
    """
    (path,) = (each.log_path for each in site.supervisor.services if each.name == gatekeeper)
    for line in path.read_text().splitlines():
        said = json.loads(line)
        if said.get("method") == FETCH_MODEL and "reason" in said:
            assert said["reason"] == "unknown_identity"
            if said["peer"].endswith(f"/{name}"):
                return datetime.fromisoformat(said["timestamp"]).timestamp()
    return None


def check_bitten(site: Site, what: str, name: str, watches: dict[str, Watch], acknowledged: float) -> None:
    since_1970 = time.time() - time.monotonic()
    wait_until(lambda: all(each.denied and each.stream_ended for each in watches.values()))
    wait_until(lambda: all(stream_cut_at(site, gatekeeper, name) for gatekeeper in watches))
    for gatekeeper, watch in watches.items():
        cut_at = stream_cut_at(site, gatekeeper, name)
        assert cut_at is not None
        cut = cut_at - since_1970 - acknowledged
        print(
            f"{what}: {gatekeeper} refused a call {watch.denied - acknowledged:.3f} s after the acknowledgement, "
            f"and cut the stream {cut:.3f} s after it"
        )
        assert watch.denied - acknowledged < BOUND_SECONDS
        assert cut < BOUND_SECONDS
        assert watch.served < watch.denied, "once refused, it is served no more"
        assert watch.reason == "unknown_identity"
        assert isinstance(watch.stream_error, DeniedError)
        assert watch.chunks < CHUNKS, "the model was never whole"


def test_a_revoked_participant_is_refused_by_every_gatekeeper_in_time(site: Site) -> None:
    with watched(site, ROVERS[0], 0.15) as watches:
        acknowledged = revoke(
            site, lambda state, now_us: draft_participant_revocation(state, ROVERS[0], reason="stolen", now_us=now_us)
        )
        check_bitten(site, "participant revoked", ROVERS[0], watches, acknowledged)


def test_a_revoked_tls_key_is_refused_by_every_gatekeeper_in_time(site: Site) -> None:
    tls = site.profile(ROVERS[1]).open_tls()
    certificate = open_svid(tls.chain, "sfrl.example")
    with watched(site, ROVERS[1], 0.15) as watches:
        acknowledged = revoke(
            site,
            lambda state, now_us: draft_key_revocation(
                state, certificate.spki_sha256, None, reason="copied", now_us=now_us
            ),
        )
        check_bitten(site, "TLS key revoked", ROVERS[1], watches, acknowledged)


def test_gatekeepers_that_the_log_cannot_reach_stop_by_themselves_and_go_on_when_it_can(site: Site) -> None:
    log = site.service("audit_log")
    with watched(site, ROVERS[2], 0.15) as watches:
        # As a cut cable does it: connections stay open, and nothing comes.
        os.kill(log.process.pid, signal.SIGSTOP)
        cut = time.monotonic()
        try:
            wait_until(lambda: all(each.unavailable for each in watches.values()))
        finally:
            os.kill(log.process.pid, signal.SIGCONT)
        for gatekeeper, watch in watches.items():
            print(f"log cut off: {gatekeeper} served nobody {watch.unavailable - cut:.3f} s later")
            assert watch.served - cut < BOUND_SECONDS
            assert watch.denied == 0.0, "nobody is refused for it"
        again = time.monotonic()
        wait_until(lambda: all(each.served > again for each in watches.values()))
