"""What is allowed in a plan, and perhaps not meant: said as a federation is made, and never an error.

Runs in: cli.
Trusts: whoever starts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sfrl_secure.governance.documents import parse_document
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.operating.aggregation_cautions import aggregation_cautions
from sfrl_secure.services.federation.documents import terms_document
from sfrl_secure.services.federation.masks import PlannedMask
from sfrl_secure.services.federation.plan import FederationPlan


def plan_cautions(plan: FederationPlan, masks: Mapping[str, PlannedMask]) -> Iterator[tuple[str, str]]:
    """Say of each segment what of its rounds' rule somebody should look at twice: its name, and the words.

    The caller has checked the plan.
    """
    for segment in plan.segments:
        mask = masks.get(segment.name)
        raw = terms_document(ZERO_DIGEST, segment, ZERO_DIGEST, 1, mask=None if mask is None else mask.terms)
        terms = parse_document(SegmentTerms.payload_type, raw)
        assert isinstance(terms, SegmentTerms), "the document is of this type"
        yield from ((segment.name, words) for words in aggregation_cautions(terms))
