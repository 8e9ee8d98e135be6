"""The cap: where few updates carry a coordinate, the step there is at most so large.

Whoever is alone on a coordinate moves it as far as he likes under any rule that asks only those who speak.

Format: proto/README.md, "Cap".

Runs in: aggregator.
Trusts: the counts, which come with the step.
"""

from __future__ import annotations

import numpy as np

from sfrl_secure.aggregation.combined import Combined
from sfrl_secure.governance.aggregation_terms import CapTerms
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.sparse.update import UpdatePart


def cut(terms: SegmentTerms, combined: Combined) -> UpdatePart:
    """The step after the terms' cap; what was combined keeps its own."""
    return combined.step if terms.cap is None else capped(terms.cap, combined)


def capped(cap: CapTerms, combined: Combined) -> UpdatePart:
    """The step after a cap. No value becomes zero: a sparse step stays one."""
    carriers, step = combined.carriers, combined.step
    assert carriers is not None, "whoever caps has asked for the carriers"
    # Only what is too large: most of a step is not.
    large = np.flatnonzero(np.abs(step.values) > cap.magnitude)
    places = large + step.at.start if isinstance(step.at, slice) else step.at[large]
    large = large[carriers[places] < cap.contributors_below]
    if not large.size:
        return step
    values = step.values.copy()
    values[large] = np.clip(values[large], -cap.magnitude, cap.magnitude)
    return UpdatePart(step.at, values)
