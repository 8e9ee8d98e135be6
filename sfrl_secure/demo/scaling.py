"""Rock contents to model inputs, with constants that nobody's rocks went into.

An input is ln(content / typical) / ln(fold), cut to [-4, 4], followed by one mark a feature: 1 where there is no
content. A content of zero or less (below detection, or left blank as a zero) has no logarithm and counts as missing. A
missing content gives input 0: the typical rock.

The constants stand in the signed model manifest as integers in units of 2**-16, so that every rover scales alike and
none has to show its own mean or spread. They come from BASALT below: contents of a common basalt, rounded to one or two
digits from textbook knowledge of ocean-floor, island and continental basalts, and the factor by which contents usually
differ from it. They only have to bring inputs near to one in size; nothing else depends on them.

Runs in: participant, in the demo alone.
Trusts: the manifest, whose signatures the caller has verified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfrl_secure.demo.rocks import FEATURE_NAMES
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest

EXPONENT = 16
"""The demo's constants are in units of 2**-16."""

CENTRES = "scaling/centres"
SPREADS = "scaling/spreads"
"""Names of the two lists among the manifest's constants."""

INPUT_MAX = 4.0
"""Largest magnitude of a scaled content: one slip of the decimal point must not outweigh a rock."""

LOGARITHM_MAX = 64
"""Largest magnitude of a centre, and largest spread, as a natural logarithm."""

INPUTS = 2 * len(FEATURE_NAMES)
"""Inputs of a model of rocks: a value and a mark for each feature."""

BASALT: dict[str, tuple[float, float]] = {
    # Weight percent: typical content, usual factor.
    "SIO2": (49.5, 1.06), "TIO2": (1.5, 1.8), "AL2O3": (15.0, 1.25), "FEOT": (10.5, 1.25), "MNO": (0.18, 1.3),
    "MGO": (7.0, 1.6), "CAO": (10.0, 1.4), "NA2O": (2.7, 1.5), "K2O": (0.8, 2.5), "P2O5": (0.25, 2.0),
    # Parts per million: transition metals and gallium.
    "SC": (30.0, 1.6), "V": (250.0, 1.6), "CR": (200.0, 3.0), "CO": (45.0, 1.5), "NI": (100.0, 2.5),
    "CU": (70.0, 2.0), "ZN": (95.0, 1.4), "GA": (18.0, 1.3),
    # Large ions, and elements of high charge.
    "RB": (15.0, 3.0), "SR": (350.0, 2.0), "Y": (25.0, 1.6), "ZR": (130.0, 2.0), "NB": (10.0, 3.0),
    "CS": (0.5, 3.0), "BA": (250.0, 3.0), "HF": (3.5, 2.0), "TA": (0.7, 3.0), "PB": (4.0, 2.5), "TH": (2.0, 3.0),
    "U": (0.6, 3.0),
    # Rare earths.
    "LA": (15.0, 2.5), "CE": (35.0, 2.5), "PR": (4.5, 2.2), "ND": (20.0, 2.0), "SM": (5.0, 1.8), "EU": (1.6, 1.6),
    "GD": (5.0, 1.6), "TB": (0.8, 1.6), "DY": (4.8, 1.5), "HO": (1.0, 1.5), "ER": (2.6, 1.5), "TM": (0.38, 1.5),
    "YB": (2.3, 1.5), "LU": (0.35, 1.5),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scaling:
    """The constants, one of each for each of FEATURE_NAMES, in that order.

    Attributes:
        centres: ln(typical) in units of 2**-exponent, magnitude at most LOGARITHM_MAX.
        spreads: ln(fold) in the same units, above 0 and at most LOGARITHM_MAX.
        exponent: from 0 to 40, as the manifest has checked.
    """

    centres: tuple[int, ...]
    spreads: tuple[int, ...]
    exponent: int

    def __post_init__(self) -> None:
        if not len(self.centres) == len(self.spreads) == len(FEATURE_NAMES):
            raise MalformedError(f"a scaling has one centre and one spread for each of {len(FEATURE_NAMES)} features")
        largest = LOGARITHM_MAX << self.exponent
        if any(abs(centre) > largest for centre in self.centres):
            raise MalformedError(f"a centre is a logarithm of magnitude {LOGARITHM_MAX} at most")
        if any(not 1 <= spread <= largest for spread in self.spreads):
            raise MalformedError(f"a spread is a logarithm above 0 and at most {LOGARITHM_MAX}")

    def to_constants(self) -> dict[str, tuple[int, ...]]:
        """Give the constants for the model manifest, whose `constants_exponent` is this scaling's."""
        return {CENTRES: self.centres, SPREADS: self.spreads}


def basalt_scaling() -> Scaling:
    """Build the demo's constants from BASALT, in the order of the rock table."""
    table = [BASALT[name] for name in FEATURE_NAMES]
    return Scaling(
        centres=tuple(round(math.log(typical) * 2**EXPONENT) for typical, _ in table),
        spreads=tuple(round(math.log(fold) * 2**EXPONENT) for _, fold in table),
        exponent=EXPONENT,
    )


def scaling_of(manifest: ModelManifest) -> Scaling:
    """Take the constants out of the manifest that the operators signed.

    Raises:
        MalformedError: a list is missing, of another length, or has a value out of range.
    """
    try:
        return Scaling(manifest.constants[CENTRES], manifest.constants[SPREADS], manifest.constants_exponent)
    except KeyError as error:
        raise MalformedError("the model manifest lacks the constants that scale rocks") from error


def scale_features(features: npt.NDArray[np.float64], scaling: Scaling) -> npt.NDArray[np.float32]:
    """Turn contents into model inputs.

    Args:
        features: float64, (n, 44), contents, columns as FEATURE_NAMES; NaN where missing.

    Returns: float32, (n, 88): 44 values in [-4, 4], then 44 marks, 1 where the content is missing.

    Raises:
        MalformedError: the table has another number of columns.
    """
    if features.ndim != 2 or features.shape[1] != len(FEATURE_NAMES):
        raise MalformedError(f"a table of rocks has {len(FEATURE_NAMES)} columns")
    missing = ~(features > 0.0)  # True for NaN too.
    logarithms = np.log(np.where(missing, 1.0, features))
    centres = np.ldexp(np.array(scaling.centres, dtype=np.float64), -scaling.exponent)
    spreads = np.ldexp(np.array(scaling.spreads, dtype=np.float64), -scaling.exponent)
    values = np.clip((logarithms - centres) / spreads, -INPUT_MAX, INPUT_MAX)
    return np.concatenate([np.where(missing, 0.0, values), missing], axis=1).astype(np.float32)
