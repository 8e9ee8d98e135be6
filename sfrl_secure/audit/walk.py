"""The walk: from a trust policy and a log's files to a report.

In order: the checkpoint under every log key and the quorum; structure; older checkpoints that the caller has; meaning
and time, entry by entry; and objects that no entry names. Before meaning the first thing that does not hold ends it:
what such entries mean is not asked.

Format: proto/README.md, "Verification of a log, in order".

Runs in: verifier, auditors' machines.
Trusts: the trust policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from sfrl_secure.audit.known_keys import open_newest
from sfrl_secure.audit.report import Accepted, Report, Unmatched, Witnessed
from sfrl_secure.audit.source import FolderObjects, LogSource
from sfrl_secure.audit.structure import Progress, Structure, check_structure, entries_of
from sfrl_secure.audit.witnessed_time import Contradiction, WitnessedTime
from sfrl_secure.errors import DigestError, MalformedError, MissingEvidenceError, NotFoundError, VerificationError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.replay.docket import STORE
from sfrl_secure.replay.findings import FILES, LOG, Finding, Missing
from sfrl_secure.replay.fold import Replay
from sfrl_secure.translog.anchor import quorum_time
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tree import MerkleTree

_UNSOUND = frozenset({
    "structure", "genesis", "initial_model", "aggregate", "model", "server_state", "next_mask", "clusters",
    "close_dropped", "object_altered",
})  # fmt: skip
"""Findings after which it is not shown that every model is right."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What is audited, and against what.

    Attributes:
        older: checkpoints of the same log that the caller got before, as notes.
        same_operator: names in the trust policy of witnesses that the log's own operator runs.
    """

    source: LogSource
    policy: TrustPolicy
    objects: FolderObjects
    older: Sequence[bytes] = ()
    same_operator: Collection[str] = ()


def walk(audit: Audit, progress: Progress) -> Report:
    """Audit a log.

    Raises:
        MalformedError: one of the older checkpoints is none of this log's.
    """
    raw = audit.source.read("checkpoint", NOTE_BYTES_MAX)
    if raw is None:
        return Report(missing=(Missing(None, None, "the log's newest checkpoint", "checkpoint"),))
    try:
        opened = open_newest(raw, audit.policy)
    except MissingEvidenceError as error:
        return Report(missing=(Missing(None, None, str(error), "checkpoint"),))
    except NotFoundError as error:
        # Another log's; or an origin that somebody changed, which must not pass for a mistake.
        return Report(findings=(Finding("checkpoint", None, FILES, "", str(error), "checkpoint"),))
    except (MalformedError, VerificationError) as error:
        return Report(findings=(Finding("checkpoint", None, FILES, "", str(error), "checkpoint"),))
    report = _report_of(audit, opened)
    structure = check_structure(audit.source, opened.checkpoint, progress)
    findings, missing = list(structure.findings), list(structure.missing)
    if not opened.quorum_met:
        findings.insert(0, Finding("checkpoint", None, FILES, f"quorum {audit.policy.quorum}", "not met", "checkpoint"))
    if structure.tree is not None:
        older_findings, older_missing, contradictions = _compare_older(audit, opened, structure.tree)
        findings += older_findings
        missing += older_missing
        report = replace(report, contradictions=tuple(contradictions))
    report = replace(report, findings=tuple(findings), missing=tuple(missing))
    # Nothing in a log that does not hold together, or that nobody witnessed, is asked what it means.
    if structure.tree is None or findings:
        return report
    return _replay(audit, report, opened, structure, progress)


def _report_of(audit: Audit, opened: OpenedCheckpoint) -> Report:
    checkpoint = opened.checkpoint
    same = tuple(name for name in opened.witness_times if name in audit.same_operator)
    return Report(
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        witnessed=Witnessed(dict(opened.witness_times), audit.policy.quorum, opened.quorum_met, same),
    )


def _compare_older(
    audit: Audit, opened: OpenedCheckpoint, tree: MerkleTree
) -> tuple[list[Finding], list[Missing], list[Contradiction]]:
    findings: list[Finding] = []
    missing: list[Missing] = []
    contradictions: list[Contradiction] = []
    for raw in audit.older:
        try:
            older = open_checkpoint(raw, audit.policy, quorum=False, archived=True).checkpoint
        except VerificationError:
            raise MalformedError("an older checkpoint is signed by every key of a generation of the log's") from None
        if older.origin != opened.checkpoint.origin:
            raise MalformedError("an older checkpoint is of the same log")
        if older.size > tree.size:
            missing.append(Missing(None, None, f"the log had {older.size} entries in a checkpoint given", "checkpoint"))
        elif tree.root(older.size) != older.root:
            expected = f"root {older.root.hex()} at size {older.size}, which the log signed"
            findings.append(Finding("equivocation", None, LOG, expected, f"root {tree.root(older.size).hex()}"))
            contradictions.append(Contradiction(None, bytes(raw), opened.note))
    return findings, missing, contradictions


def _replay(
    audit: Audit, report: Report, opened: OpenedCheckpoint, structure: Structure, progress: Progress
) -> Report:
    assert structure.tree is not None, "the caller has looked"
    log = audit.policy.log(report.origin)
    assert log is not None, "the checkpoint was opened with it"
    replay = Replay(log, audit.objects)
    time = WitnessedTime(audit.policy, structure.tree.root, opened.note)
    findings = list(report.findings)
    try:
        for index, raw in enumerate(entries_of(audit.source, structure.tree, structure.readable)):
            replay.step(raw)
            if replay.is_ended:
                break
            time.take(replay.taken)
            progress("replay", index + 1, report.size)
    except MalformedError as error:
        findings.append(Finding("structure", replay.size, FILES, "the same bytes twice", str(error)))
    replay.finish()
    seconds = quorum_time(audit.policy, opened.witness_times)
    time.finish(seconds, is_whole=replay.size == report.size)
    findings += time.findings
    docket = replay.docket
    if not report.size:
        findings.append(Finding("genesis", None, LOG, "a genesis at index 0", "a log without entries"))
    # What operators accept is told, and makes nothing false.
    accepted = replay.accepted
    matched = {(each.index, each.code) for each in accepted}
    findings += [each for each in docket.findings if each not in accepted]
    findings += _stray_objects(audit.objects, docket.named, progress)
    missing = (*report.missing, *replay.missing)
    return replace(
        report,
        log_time_us=replay.last_time_us,
        replayed=replay.size,
        rounds=docket.rounds,
        models=docket.models,
        admitted=docket.admitted,
        refused=dict(docket.refused),
        refusals_counted=docket.refusals_counted,
        refusals_on_word=docket.refusals_on_word,
        withdrawals=docket.withdrawals,
        complaints=docket.complaints,
        decisions=docket.decisions,
        overridden=docket.overridden,
        orders=dict(docket.orders),
        superseded=tuple(docket.superseded),
        anchors=time.anchors,
        gap_us=None if seconds is None else time.gap_us,
        results_sound=not (
            missing or replay.untold or replay.is_ended or any(each.code in _UNSOUND for each in findings)
        ),
        conduct_clean=not findings,
        findings=tuple(findings),
        accepted=tuple(Accepted(finding, order_index) for finding, order_index in accepted.items()),
        unmatched=tuple(
            Unmatched(code, index, at)
            for (index, code), at in sorted(replay.state.accepted.items())
            if (index, code) not in matched
        ),
        # That a time is not shown does not make a model wrong.
        missing=(*missing, *time.missing),
        untold=replay.untold,
        contradictions=(*report.contradictions, *time.contradictions),
    )


def _stray_objects(objects: FolderObjects, named: Collection[Digest], progress: Progress) -> Iterable[Finding]:
    """Objects that no entry names: their bytes are compared with their names all the same."""
    stray = [digest for digest in objects.names() if digest not in named]
    for done, digest in enumerate(sorted(stray)):
        try:
            objects.holds(digest)
        except DigestError:
            expected = "bytes of the SHA-256 that names them; no entry needs it"
            yield Finding("object_altered", None, STORE, expected, "others", digest.hex())
        progress("objects", done + 1, len(stray))
