"""Models, as they are published: a round's first one, and the one that takes its place when it is derived again.

Whatever an entry says of a model is worked out here from the counted updates and compared. A false name is a finding
and voids nothing: who holds no payloads cannot see it, and goes on from the model that was published. So the walk goes
on from it too, and what honest services write afterwards is not stale.

No lie hides behind an earlier one. What claims to come of a base that is no model is false, whatever it is; what cannot
be worked out, because something is not there, is named with its entry.

Format: proto/README.md, "Statements", model_published; "Re-aggregation"; "Aggregation".

Runs in: verifier.
Trusts: the replay's state. No writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.aggregation_terms import CLUSTERED_MEAN
from sfrl_secure.replay.beginnings import server_state_after
from sfrl_secure.replay.docket import Docket, Position, Superseded
from sfrl_secure.replay.findings import Untold, Void, hex_of
from sfrl_secure.replay.models import model_bytes, parse_model
from sfrl_secure.replay.orders import read_model
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.recomputation import Result, Task, recompute
from sfrl_secure.replay.segments import Segment, Step
from sfrl_secure.replay.statements import Cluster, ModelPublished
from sfrl_secure.replay.terms import Terms

ARITHMETIC = 1


def apply_model(docket: Docket, segment: Segment, name: str, body: ModelPublished, at: Position) -> None:
    """model_published: a closed round's model, or one that takes the place of an earlier one."""
    if body.supersedes is None:
        _apply_first(docket, segment, body, at)
    else:
        _apply_again(docket, segment, name, body, body.supersedes, at)
    segment.models.add(body.model)
    segment.models.update(cluster.model for cluster in body.clusters)
    segment.control_head = at.leaf
    docket.models += 1


def _apply_first(docket: Docket, segment: Segment, body: ModelPublished, at: Position) -> None:
    closed = segment.round
    if segment.is_halted:
        raise Void("halted", "a segment that is not halted", "halted")
    if closed is None or not closed.awaits_model or body.round != closed.number:
        raise Void("no_model_due", "a closed round without its model", f"round {body.round}")
    if body.round_closed != closed.closed_hash:
        raise Void("no_model_due", closed.closed_hash.hex(), body.round_closed.hex())
    if body.base_model != closed.base_model:
        raise Void("base_model", closed.base_model.hex(), body.base_model.hex())
    step = Step(
        round=closed.number,
        model=body.model,
        base=body.base_model,
        published=at.leaf,
        index=at.index,
        server_state=body.server_state,
        next_mask=body.next_mask,
        opened=closed.opened,
        mask=closed.mask,
        closed_hash=closed.closed_hash,
        terms=closed.terms,
        counted=closed.counted,
    )
    _check_form(step, body)
    values = _compare(docket, segment, _task(segment, step, segment.values, closed.server_state), body, at)
    closed.has_model = True
    segment.lineage.append(step)
    segment.model, segment.values = body.model, values


def _apply_again(
    docket: Docket, segment: Segment, name: str, body: ModelPublished, supersedes: Digest, at: Position
) -> None:
    step = segment.due[0] if segment.due else None
    if step is None or body.round != step.round:
        raise Void("supersedes", "no step" if step is None else f"round {step.round}", f"round {body.round}")
    if (body.round_closed, supersedes) != (step.closed_hash, step.published):
        raise Void("supersedes", f"the closing and the model of round {step.round}", "others")
    before = segment.before_due
    base = segment.initial if before is None else before.model
    if body.base_model != base:
        raise Void("base_model", base.hex(), body.base_model.hex())
    _check_form(step, body)
    base_values = read_model(docket, base, step.terms, at)
    again = replace(step, base=base)
    task = _task(segment, again, base_values, server_state_after(before, step.terms))
    values = _compare(docket, segment, replace(task, left_out=step.leaving_out, is_again=True), body, at)
    docket.superseded.append(Superseded(name, step.round, step.index, at.index, len(step.leaving_out)))
    step.model, step.base, step.published, step.index = body.model, base, at.leaf, at.index
    step.server_state, step.next_mask = body.server_state, body.next_mask
    step.left_out, step.leaving_out = step.leaving_out, frozenset()
    del segment.due[0]
    if not segment.due:
        segment.model, segment.values = body.model, values


def _task(segment: Segment, step: Step, base_values: Integers | None, server_state: Digest | None) -> Task:
    return Task(
        round=step.round,
        terms=step.terms,
        opened=step.opened,
        counted=step.counted,
        left_out=frozenset(),
        base=step.base,
        base_values=base_values,
        base_is_none=step.base in segment.no_models,
        server_state=server_state,
        mask=step.mask,
    )


def _check_form(step: Step, body: ModelPublished) -> None:
    """What of a model's entry needs no object: the rule's name, and what there may be at all."""
    terms = step.terms
    if body.rule != terms.rule.name or body.arithmetic != ARITHMETIC:
        raise Void("rule", f"{terms.rule.name} in arithmetic {ARITHMETIC}", f"{body.rule} in {body.arithmetic}")
    if terms.server is None and body.server_state is not None:
        raise Void("server_state", "none", body.server_state.hex())
    if (terms.mask is None or terms.mask.next is None) and body.next_mask is not None:
        raise Void("next_mask", "none", body.next_mask.hex())
    if terms.rule.name != CLUSTERED_MEAN and body.clusters:
        raise Void("clusters", "none", _words_of(body.clusters))
    if body.supersedes is not None and body.clusters:
        raise Void("clusters", "none, of a model that is derived again", _words_of(body.clusters))
    for cluster in body.clusters:
        # Members ascend: that is the entry's form.
        if len(cluster.members) < terms.cohort_min or cluster.members[-1] >= len(step.counted):
            expected = f"{terms.cohort_min} or more of {len(step.counted)} counted updates"
            raise Void("clusters", expected, _words_of([cluster]))


def _compare(
    docket: Docket, segment: Segment, task: Task, body: ModelPublished, at: Position
) -> Integers | None:
    """Compare what was published with what it is; give the model's integers to go on from."""
    before = len(docket.findings)
    result = recompute(docket, task, at)
    # Of a state that is none it was said that nothing can stand on it: that is told.
    is_refuted = any(finding.code == "server_state" for finding in docket.findings[before:])
    found = {
        "aggregate": body.aggregate,
        "model": body.model,
        "server_state": body.server_state,
        "next_mask": body.next_mask,
    }
    for code, digest in found.items():
        if code in result.names and result.names[code] != digest:
            docket.find(code, at, f"in round {task.round} {_due_of(task, result.names[code])}", hex_of(digest))
    if result.clusters is not None and result.clusters != body.clusters:
        docket.find("clusters", at, f"in round {task.round} {_words_of(result.clusters)}", _words_of(body.clusters))
    untold = tuple(_untold(task, result))
    if untold and not is_refuted:
        docket.untold.append(Untold(at.index, task.round, untold))
    for code, digest in found.items():
        if digest is not None and code != "model":
            docket.look_for(digest, at, f"the {code.replace('_', ' ')} of round {task.round}")
    for cluster in body.clusters:
        docket.look_for(cluster.model, at, f"the model of a cluster of round {task.round}")
    if result.names.get("model") != body.model:
        return _read_published(docket, segment, task.terms, body, at)
    docket.look_for(body.model, at, f"the model of round {task.round}")
    return result.values


def _untold(task: Task, result: Result) -> Iterator[str]:
    """What the round publishes, and nobody can tell from what is there."""
    terms = task.terms
    published = {
        "aggregate": True,
        "model": True,
        "server_state": terms.server is not None,
        "next_mask": terms.mask is not None and terms.mask.next is not None,
    }
    yield from (code for code in published if published[code] and code not in result.names)
    if terms.rule.name == CLUSTERED_MEAN and not task.is_again and result.clusters is None:
        yield "clusters"


def _due_of(task: Task, digest: Digest | None) -> str:
    """What should have been published, for people."""
    return "none, on a base that is no model" if digest is None and task.base_is_none else hex_of(digest)


def _words_of(clusters: Sequence[Cluster]) -> str:
    """Clusters for people: which of the counted updates, and their model."""
    words = [f"{' '.join(map(str, each.members))} with model {each.model.hex()}" for each in clusters]
    return "; ".join(words) or "none"


def _read_published(
    docket: Docket, segment: Segment, terms: Terms, body: ModelPublished, at: Position
) -> Integers | None:
    """Go on from the model that was published, on the aggregator's word, so that later rounds can be checked."""
    raw = docket.read(body.model, at, model_bytes(terms.manifest), f"the model of round {body.round}")
    if raw is None:
        return None
    try:
        return parse_model(raw, terms.manifest, terms.grid_exponent)
    except MalformedError:
        docket.find("model", at, f"in round {body.round} a model of the terms' manifest and grid", "another object")
        segment.no_models.add(body.model)
        return None
