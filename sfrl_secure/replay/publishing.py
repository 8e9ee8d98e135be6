"""Models, as they are published: a round's first one, and the one that takes its place when it is derived again.

Whatever an entry says of a model is computed here from the counted updates and compared. A false name is a finding and
voids nothing: who holds no payloads cannot see it, and goes on from the model that was published. So the walk goes on
from it too, and what honest services write afterwards is not stale.

Format: proto/README.md, "Statements", model_published; "Re-aggregation"; "Aggregation".

Runs in: verifier.
Trusts: the replay's state. No writer.
"""

from __future__ import annotations

import numpy as np

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.arithmetic import (
    Integers,
    RunningSum,
    add_to_model,
    digest_of,
    encode_model,
    model_bytes,
    parse_model,
)
from sfrl_secure.replay.closing import add_again
from sfrl_secure.replay.docket import Docket, Position, Superseded
from sfrl_secure.replay.encoder import encode_aggregate
from sfrl_secure.replay.findings import Void
from sfrl_secure.replay.masks import read_mask
from sfrl_secure.replay.orders import read_model
from sfrl_secure.replay.segments import Round, Segment, Step
from sfrl_secure.replay.statements import ModelPublished
from sfrl_secure.replay.terms import Terms

ARITHMETIC = 1


def apply_model(docket: Docket, segment: Segment, name: str, body: ModelPublished, at: Position) -> None:
    """model_published: a closed round's model, or one that takes the place of an earlier one."""
    if body.supersedes is None:
        _apply_first(docket, segment, body, at)
    else:
        _apply_again(docket, segment, name, body, body.supersedes, at)
    segment.models.add(body.model)
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
    _check_rule(closed.terms, body)
    aggregate = closed.total.mean() if closed.is_summed else None
    values = _compare(docket, closed.terms, aggregate, segment.values, body, at)
    step = _step(closed, body, at)
    closed.has_model = True
    closed.release()
    segment.lineage.append(step)
    segment.model, segment.values = body.model, values


def _step(closed: Round, body: ModelPublished, at: Position) -> Step:
    return Step(
        round=closed.number,
        model=body.model,
        base=body.base_model,
        published=at.leaf,
        index=at.index,
        closed_hash=closed.closed_hash,
        terms=closed.terms,
        counted=closed.counted,
    )


def _apply_again(
    docket: Docket, segment: Segment, name: str, body: ModelPublished, supersedes: Digest, at: Position
) -> None:
    step = segment.due[0] if segment.due else None
    if step is None or body.round != step.round:
        raise Void("supersedes", "no step" if step is None else f"round {step.round}", f"round {body.round}")
    if (body.round_closed, supersedes) != (step.closed_hash, step.published):
        raise Void("supersedes", f"the closing and the model of round {step.round}", "others")
    base = segment.base_due
    if body.base_model != base:
        raise Void("base_model", base.hex(), body.base_model.hex())
    _check_rule(step.terms, body)
    base_values = read_model(docket, base, step.terms, at)
    values = _compare(docket, step.terms, _aggregate_again(docket, step, at), base_values, body, at)
    docket.superseded.append(Superseded(name, step.round, step.index, at.index, len(step.leaving_out)))
    step.model, step.base, step.published, step.index = body.model, base, at.leaf, at.index
    step.left_out, step.leaving_out = step.leaving_out, frozenset()
    del segment.due[0]
    if not segment.due:
        segment.model, segment.values = body.model, values


def _aggregate_again(docket: Docket, step: Step, at: Position) -> Integers | None:
    """The aggregate of the counted updates that are not left out; None where one of them is not there."""
    rest = [each for each in step.counted if each.statement_digest not in step.leaving_out]
    if len(rest) < step.terms.cohort_min:
        return np.zeros(step.terms.manifest.coordinates, np.int64)
    total = RunningSum(step.terms.manifest.coordinates)
    mask = None
    if any(each.update.support == "agreed" for each in rest):
        mask = read_mask(docket, step.terms, at, f"the mask of round {step.round}, which is derived again")
    if not all(add_again(docket, total, step.terms, mask, each, at) for each in rest):
        return None
    return total.mean()


def _check_rule(terms: Terms, body: ModelPublished) -> None:
    if body.rule != terms.rule or body.arithmetic != ARITHMETIC:
        raise Void("rule", f"{terms.rule} in arithmetic {ARITHMETIC}", f"{body.rule} in {body.arithmetic}")


def _compare(
    docket: Docket, terms: Terms, aggregate: Integers | None, base: Integers | None, body: ModelPublished, at: Position
) -> Integers | None:
    """Compare the names of aggregate and model with what they are; give the model's integers to go on from.

    Args:
        aggregate: None where an update is not there; `base`, where the model before is not.
    """
    values = None
    if aggregate is not None:
        name = digest_of(encode_aggregate(aggregate, terms.grid_exponent))
        if name != body.aggregate:
            docket.find("aggregate", at, name.hex(), body.aggregate.hex())
        if base is not None:
            values = add_to_model(terms.manifest, base, aggregate)
            name = digest_of(encode_model(terms.manifest, terms.grid_exponent, values))
            if name != body.model:
                docket.find("model", at, name.hex(), body.model.hex())
                values = None
    docket.look_for(body.aggregate, at, f"the aggregate of round {body.round}")
    if values is None:
        return _read_published(docket, terms, body, at)
    docket.look_for(body.model, at, f"the model of round {body.round}")
    return values


def _read_published(docket: Docket, terms: Terms, body: ModelPublished, at: Position) -> Integers | None:
    """Go on from the model that was published, on the aggregator's word, so that later rounds can be checked."""
    raw = docket.read(body.model, at, model_bytes(terms.manifest), f"the model of round {body.round}")
    if raw is None:
        return None
    try:
        return parse_model(raw, terms.manifest, terms.grid_exponent)
    except MalformedError:
        docket.find("model", at, "a model of the terms' manifest and grid", "another object")
        return None
