"""Ingest: what it costs to admit an update, how much of that are the two Cedar decisions, and what enrolment costs.

The gatekeeper's own admitter takes requests of 300 KB of 10,000 participants under 200 rules, over a durable log in
the same process: parsing, signature, rules, decoding, measuring, rules again, the object and the entry made durable.
Each sender is a stranger to every cache. Rules come in two kinds, both of 200: `scoped`, most of them about one
segment or participant, as federations write them; `general`, all of them about everybody, the worst case.

Enrolling is measured as what the log does for it: a record by a join key and the identity that is issued then, each
durable and read by the gatekeeper. It is done in turns in two federations, a new one and the full one, so that a
machine that slows down slows both; the ratio is that of the medians.

Beside these, streams of updates go through a running gatekeeper: see `uploads.streams`.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.figures import Bar, percentile
from benchmarks.ingest_people import Person, invitation_of, issued_to, joined_record, people, populate, requests_of
from benchmarks.ingest_site import IngestSite, running_ingest
from benchmarks.uploads import streams
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import ED25519, SigningKey
from sfrl_secure.governance.build import DEFAULT_RULES
from sfrl_secure.governance.policy import AdmissionPolicy
from sfrl_secure.ids import sha256
from sfrl_secure.rpc.logs import configure_logs
from sfrl_secure.services.gatekeeper.admit import Submission
from sfrl_secure.wire.uploads import parse_upload_start

RULES = 200
SHARE_MAX = 0.05
ENROL_RATIO_MAX = 1.2
SEED = 7


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        participants: enrolled before updates are admitted.
        enrolled: enrolments that are timed, in the new federation and in the full one.
        admitted: updates that are timed one after the other, under each kind of rules.
        at_once: updates that four threads admit together.
    """

    participants: int
    enrolled: int
    admitted: int
    at_once: int


FULL = Scale(participants=10_000, enrolled=100, admitted=150, at_once=150)
QUICK = Scale(participants=300, enrolled=20, admitted=15, at_once=15)
THREADS = 4


@dataclass(slots=True)
class DecisionClock:
    """Time that the Cedar decisions of this thread take."""

    seconds: float = 0.0
    count: int = 0
    parts: list[float] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time every decision until the end of the block."""
        decide = AdmissionPolicy._decide

        def timed(*arguments: Any) -> Any:
            begun = time.perf_counter()
            decision = decide(*arguments)
            spent = time.perf_counter() - begun
            self.seconds += spent
            self.count += 1
            self.parts.append(spent)
            return decision

        AdmissionPolicy._decide = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            AdmissionPolicy._decide = decide  # type: ignore[method-assign]


def run(*, quick: bool, folder: Path | None = None, only: Sequence[str] = ()) -> dict[str, Any]:
    """Run the benchmark; give its figures.

    Args:
        folder: a folder on the disk that is to be measured; a temporary one by default.
        only: `admissions` or `streams`; both by default.
    """
    figures: dict[str, Any] = {"benchmark": "ingest", "quick": quick, "cpus": len(os.sched_getaffinity(0))}
    figures["others_busy_cpus"] = round(machine.busy_cpus(), 2)
    bars: dict[str, Bar] = {}
    if not only or "admissions" in only:
        figures |= _in_one_process(QUICK if quick else FULL, folder)
        bars |= bars_of(figures)
    if not only or "streams" in only:
        with tempfile.TemporaryDirectory(dir=folder) as made:
            figures |= streams.run(streams.QUICK if quick else streams.FULL, Path(made))
        bars |= streams.bars_of(figures)
    figures["bars"] = {name: bar.to_json() for name, bar in bars.items()}
    figures["errors"] = {}
    return figures


def _in_one_process(scale: Scale, folder: Path | None) -> dict[str, Any]:
    """Admissions and enrolments, without sockets."""
    # A line for each admission, as in a service, and nobody who reads it: standard output is for the figures.
    configure_logs("gatekeeper", StringIO())
    figures: dict[str, Any] = {"participants": scale.participants, "rules": RULES}
    with tempfile.TemporaryDirectory(dir=folder) as made, running_ingest(Path(made)) as site:
        figures["fsync_ms"] = round(machine.fsync_seconds(Path(made)) * 1000, 3)
        crowd = people(0, scale.participants)
        populate(site, crowd)
        figures |= _enrolments(site, Path(made), scale)
        figures |= _admissions(site, crowd, scale)
    return figures


def bars_of(figures: dict[str, Any]) -> dict[str, Bar]:
    """What issue 4 asks of the figures."""
    share = f"at most {SHARE_MAX}"
    return {
        "decision_share": Bar(figures["decision_share"], SHARE_MAX, share, at_most=True),
        "decision_share_general": Bar(figures["decision_share_general"], SHARE_MAX, share, at_most=True),
        "enrol_ratio": Bar(figures["enrol_ratio"], ENROL_RATIO_MAX, f"at most {ENROL_RATIO_MAX}", at_most=True),
    }


def scoped_rules() -> str:
    """200 rules: one in two about one segment, one in four about one participant, the others about everybody."""
    segments = [
        f'@id("segment-{number}") forbid (principal, action == Action::"{"submit" if number % 2 else "admit"}", '
        f'resource == Segment::"sand-{number // 2}") when {{ context.weight > {1_000 + number} }};'
        for number in range(RULES // 2)
    ]
    participants = [
        f'@id("participant-{number}") forbid (principal == Participant::"rover-{number:06}", action, resource) '
        f"when {{ context.round > {1_000 + number} }};"
        for number in range(RULES // 4)
    ]
    return _with_defaults([*segments, *participants, *_general(RULES)])


def general_rules() -> str:
    """200 rules about everybody."""
    return _with_defaults(_general(RULES))


def _general(count: int) -> list[str]:
    return [
        f'@id("general-{number}") forbid (principal, action, resource) '
        f'when {{ principal.groups.contains("group-{number}") && context.weight > {number} }};'
        for number in range(count)
    ]


def _with_defaults(rules: Sequence[str]) -> str:
    own = DEFAULT_RULES.count("@id(")
    return DEFAULT_RULES + "\n".join(rules[: RULES - own])


@dataclass(slots=True)
class Enrolments:
    """What enrolling cost: microseconds each, on the clock and of this process's CPU time."""

    wall_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


    def enrol(self, site: IngestSite, person: Person) -> None:
        """Enrol one; the invitation is the operators' and is not timed."""
        token = SigningKey.generate(ED25519)
        site.log.append(invitation_of(site, person, token))
        record = self._append(site, joined_record(site, person, token))
        issued = self._append(site, issued_to(site, person))
        self.wall_us.append((record[0] + issued[0]) * 1e6)
        self.cpu_us.append((record[1] + issued[1]) * 1e6)

    @staticmethod
    def _append(site: IngestSite, envelope: Envelope) -> tuple[float, float]:
        begun, used = time.perf_counter(), time.process_time()
        site.log.append(envelope)
        return time.perf_counter() - begun, time.process_time() - used


def _enrolments(full: IngestSite, folder: Path, scale: Scale) -> dict[str, Any]:
    first, last = Enrolments(), Enrolments()
    with running_ingest(folder / "new") as new:
        for one, other in zip(people(0, scale.enrolled), people(scale.participants, scale.enrolled), strict=True):
            first.enrol(new, one)
            last.enrol(full, other)
    return _enrolment(first, last)


def _enrolment(first: Enrolments, last: Enrolments) -> dict[str, Any]:
    before, after = median(first.wall_us), median(last.wall_us)
    return {
        "enrol_first_us": round(before, 1),
        "enrol_10001st_us": round(after, 1),
        "enrol_ratio": round(after / before, 3),
        "enrol_cpu_ratio": round(median(last.cpu_us) / median(first.cpu_us), 3),
        "enrol_spread_us": {
            "first": [round(percentile(first.wall_us, share), 1) for share in (0.05, 0.95)],
            "10001st": [round(percentile(last.wall_us, share), 1) for share in (0.05, 0.95)],
        },
    }


def _admissions(site: IngestSite, crowd: Sequence[Person], scale: Scale) -> dict[str, Any]:
    site.open_round()
    rng = np.random.default_rng(SEED)
    chosen = [crowd[at] for at in rng.permutation(len(crowd))[: 2 * scale.admitted + scale.at_once + 1]]
    requests = list(requests_of(site, chosen, rng))
    _admit(site, *requests.pop())  # not counted: what the first call loads and compiles
    figures: dict[str, Any] = {"request_bytes": round(median(len(raw) for _, raw in requests))}
    for kind, cedar in (("general", general_rules()), ("", scoped_rules())):
        site.publish_rules(cedar)
        part, requests = requests[: scale.admitted], requests[scale.admitted :]
        suffix = f"_{kind}" if kind else ""
        figures |= {f"{name}{suffix}": value for name, value in _one_by_one(site, part).items()}
    begun = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda request: _admit(site, *request), requests))
    figures["admissions_per_second"] = round(len(requests) / (time.perf_counter() - begun), 1)
    return figures


def _one_by_one(site: IngestSite, requests: Sequence[tuple[Person, bytes]]) -> dict[str, Any]:
    clock, times, shares = DecisionClock(), [], []
    for person, raw in requests:
        before = clock.seconds
        with clock.running():
            begun = time.perf_counter()
            _admit(site, person, raw)
            spent = time.perf_counter() - begun
        times.append(spent)
        shares.append((clock.seconds - before) / spent)
    assert clock.count == 2 * len(requests), "two decisions an admission"
    return {
        "decision_share": round(median(shares), 4),
        "decision_share_spread": [round(percentile(shares, share), 4) for share in (0.05, 0.95)],
        "decision_us": round(median(clock.parts) * 1e6, 1),
        "admit_p50_ms": round(percentile(times, 0.5) * 1e3, 2),
        "admit_p99_ms": round(percentile(times, 0.99) * 1e3, 2),
    }


def _admit(site: IngestSite, person: Person, raw: bytes) -> None:
    """What the servicer does with an upload of one request, from its bytes on."""
    start = parse_upload_start(raw)
    submission = Submission(person.spiffe_id, start.envelope_raw, start.envelope, start.update, sha256(raw))
    with site.intake.payload(submission, start.chunk, iter(())) as payload:
        deciding = site.admitter.decide(submission, payload)
        while True:
            try:
                next(deciding)
            except StopIteration as decided:
                answer = decided.value
                break
    assert not isinstance(answer, int), "no update was sent before"
