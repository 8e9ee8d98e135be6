"""What the rules decide, asked of Cedar again.

Cedar's evaluator is shared with the services, and so is nothing else: schema, requests and entities are written from
the specification. Default deny; a forbid wins; any error denies.

Format: proto/README.md, "Policy".

Runs in: verifier.
Trusts: cedarpy's evaluation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cedarpy import Entities, PolicySet, Schema, is_authorized, policies_to_json_str, validate_policies

from sfrl_secure.errors import MalformedError
from sfrl_secure.replay.cedar_text import cut_policies
from sfrl_secure.replay.documents import Participant
from sfrl_secure.replay.statements import Facts
from sfrl_secure.replay.terms import Terms
from sfrl_secure.replay.words import Update

_HEADER_FACTS: Final = """
    round: Long, weight: Long, nonzeros: Long, payload_bytes: Long, density_ppm: Long,
    noise_std: Long, value_type: String, support_mode: String, suite: String"""

SCHEMA: Final = f"""
entity Participant = {{ clearance: Long, groups: Set<String> }};
entity Segment = {{ sensitivity: Long }};
action submit appliesTo {{ principal: [Participant], resource: [Segment], context: {{{_HEADER_FACTS}
}} }};
action admit appliesTo {{ principal: [Participant], resource: [Segment], context: {{{_HEADER_FACTS},
    norm: Long, largest_magnitude: Long, tensors: Set<String>
}} }};
"""
"""The schema that the specification gives in words."""

_DETERMINING_MAX = 32
"""An entry holds 64 rule ids, of two decisions."""

_RULE_ID = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` is empty where the rules allow; `rule_ids` are those of the determining policies, sorted."""

    reason: str
    rule_ids: tuple[str, ...]


class RuleSet:
    """The policies of one rules document."""

    def __init__(self, cedar: str) -> None:
        """Parse them.

        Raises:
            MalformedError: not Cedar, a template, an `@id` missing, malformed or twice, or not of the schema.
        """
        ids = [_rule_id(text) for text in cut_policies(cedar)]
        if len(set(ids)) != len(ids):
            raise MalformedError("no rule id stands twice")
        self._schema = Schema.from_str(SCHEMA)
        if not validate_policies(cedar, self._schema).validation_passed:
            raise MalformedError("the rules fit the schema")
        # Each policy parsed by itself, and all of them under the schema: parsing them once more cannot fail.
        self._policies = PolicySet.from_str(cedar)
        # Cedar names policies by their position in the text.
        self._ids = {f"policy{position}": rule_id for position, rule_id in enumerate(ids)}

    def decide(
        self, action: str, participant: Participant, terms: Terms, update: Update, facts: Facts | None
    ) -> Decision:
        """Ask for `submit` without facts, and for `admit` with them."""
        context: dict[str, Any] = {
            "round": update.round,
            "weight": update.weight,
            "nonzeros": update.nonzeros,
            "payload_bytes": update.payload_bytes,
            "density_ppm": update.nonzeros * 1_000_000 // terms.manifest.coordinates,
            "noise_std": update.noise_std,
            "value_type": update.values,
            "support_mode": update.support,
            "suite": participant.key.suite,
        }
        if facts is not None:
            context["norm"] = facts.norm
            context["largest_magnitude"] = facts.largest_magnitude
            context["tensors"] = [terms.manifest.tensors[position].name for position in facts.tensors]
        principal = {"type": "Participant", "id": participant.name}
        resource = {"type": "Segment", "id": terms.segment}
        request = {
            "principal": principal, "action": {"type": "Action", "id": action}, "resource": resource, "context": context
        }  # fmt: skip
        try:
            entities = Entities.from_json_str(
                json.dumps([
                    _entity(principal, {"clearance": participant.clearance, "groups": sorted(participant.groups)}),
                    _entity(resource, {"sensitivity": terms.sensitivity}),
                ]),
                self._schema,
            )
            answer = is_authorized(request, self._policies, entities, self._schema)
        except ValueError:
            return Decision("policy_error", ())
        if answer.diagnostics.errors or not self._ids.keys() >= set(answer.diagnostics.reasons):
            return Decision("policy_error", ())
        if len(answer.diagnostics.reasons) > _DETERMINING_MAX:
            return Decision("policy_error", ())
        rule_ids = tuple(sorted(self._ids[reason] for reason in answer.diagnostics.reasons))
        return Decision("" if answer.allowed else "policy_denied", rule_ids)


def _entity(uid: Mapping[str, str], attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"uid": uid, "attrs": attributes, "parents": []}


def _rule_id(text: str) -> str:
    try:
        parsed = json.loads(policies_to_json_str(text))
    except ValueError:
        raise MalformedError("the rules are Cedar") from None
    policies = list(parsed["staticPolicies"].values())
    if len(policies) != 1 or parsed["templates"]:
        raise MalformedError("a rule is one policy without slots")
    rule_id = policies[0].get("annotations", {}).get("id")
    if type(rule_id) is not str or not _RULE_ID.fullmatch(rule_id):
        raise MalformedError("a rule has an @id of 1 to 64 of a-z, 0-9 and '-'")
    return rule_id
