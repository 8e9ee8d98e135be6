"""What no key of a plan shows alone: names, support modes and sizes that fit each other.

Format: proto/README.md, "Documents", segment-terms.

Runs in: cli, demo.
Trusts: whoever starts it.
"""

from __future__ import annotations

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.services.federation.documents import terms_document
from sfrl_secure.services.federation.plan import FederationPlan, SegmentPlan
from sfrl_secure.services.federation.sizes import least_payload_bytes_of


def check_plan(plan: FederationPlan) -> None:
    """Check what no key of a plan shows alone.

    Raises:
        MalformedError: a name twice, nobody to sign or to answer, more signatures wanted than there are operators, or
            a segment of which there can be no terms, or no update.
    """
    names = {
        "operators": plan.operators,
        "gatekeepers": plan.gatekeepers,
        "participants": [each.name for each in plan.participants],
        "segments": [each.name for each in plan.segments],
    }
    for key, given in names.items():
        if len(set(given)) != len(given):
            raise MalformedError(f"the plan's {key}: no name stands there twice")
    if not plan.gatekeepers:
        raise MalformedError("the plan's gatekeepers: there is at least one")
    for segment in plan.segments:
        _check_segment(segment)
    if plan.threshold > len(plan.operators):
        raise MalformedError("the plan's threshold: the operators can meet it")


def check_size(plan: SegmentPlan, support: str, values: int) -> None:
    """Check that updates of a support mode, which have so many values, fit into the payloads that are taken.

    Raises:
        MalformedError: in one of the value types no such update is short enough.
    """
    most = plan.longest_payload_bytes
    for value_type in plan.value_types:
        least = least_payload_bytes_of(values, value_type)
        if least > most:
            raise MalformedError(
                f"the plan's segment {plan.name}: its payload_bytes_max is {most}, and {support} updates have {values} "
                f"values, which take {least} bytes or more as {value_type}: raise it, or do without {value_type}"
            )


def check_terms(plan: SegmentPlan, mask: MaskTerms | None) -> None:
    """Write the terms as if for nobody, so that what they do not take is refused before anything is made.

    Raises:
        MalformedError: there are no such terms; names the segment and the plan's key.
    """
    try:
        terms_document(ZERO_DIGEST, plan, ZERO_DIGEST, 1, mask=mask)
    except MalformedError as error:
        raise fault_of(plan, error) from None


def fault_of(plan: SegmentPlan, error: MalformedError) -> MalformedError:
    """What is wrong with terms, in the words of the plan that they come of."""
    # The terms' tables are the plan's keys; `leakage` is a table of both.
    words = str(error).removeprefix("segment-terms.").removeprefix("limits.").removeprefix("round.")
    return MalformedError(f"the plan's segment {plan.name}: {words.replace('mask.next', 'mask_next')}")


def _check_segment(plan: SegmentPlan) -> None:
    where = f"the plan's segment {plan.name}"
    if ("agreed" in plan.support_modes) != (plan.mask is not None):
        raise MalformedError(f"{where}: a mask is named exactly where agreed is among the support modes")
    if plan.mask_next is not None and plan.mask is None:
        raise MalformedError(f"{where}: mask_next is for a segment with a mask")
    for key, value in (("norm_max", plan.norm_max), ("magnitude_max", plan.magnitude_max)):
        if value * 2.0**plan.grid_exponent < 1.0:
            raise MalformedError(f"{where}: {key} is one grid unit or more, {2.0**-plan.grid_exponent:g}")
    # How many coordinates the mask has is known when its file is read: `open_masks` looks again.
    check_terms(plan, None if plan.mask is None else MaskTerms(ZERO_DIGEST, 1))
    if "dense" in plan.support_modes:
        coordinates = plan.manifest.coordinates
        if plan.nonzeros_max < coordinates:
            raise MalformedError(f"{where}: a dense update has {coordinates} values, so nonzeros_max is that or more")
        check_size(plan, "dense", coordinates)
