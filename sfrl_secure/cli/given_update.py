"""An update as somebody gives it on the command line: a file, and what is said of it; signed to be sent or carried.

Runs in: cli.
Trusts: whoever types; the update is looked at as the gatekeeper will look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.byte_progress import showing_bytes
from sfrl_secure.cli.inputs import check_file, naming, parse_model_digest
from sfrl_secure.cli.update_files import SparseChange, read_update
from sfrl_secure.errors import DeniedError, MalformedError, RoundStateError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sfrl_secure.governance.terms import SegmentTerms
    from sfrl_secure.ids import Digest
    from sfrl_secure.participant.rounds import FinishedSegment, OpenRound
    from sfrl_secure.participant.sdk import Participant
    from sfrl_secure.participant.sending import SignedUpdate
    from sfrl_secure.sparse.header import SupportMode, ValueType

UpdateOption = Annotated[
    Path, typer.Option("--update", help=".npz: new weights by tensor; or, for free support, `indices` and `values`.")
]
WeightOption = Annotated[
    int, typer.Option(
        "--weight", "--samples", min=1, help="Samples, within the terms: the weight, where the rule is a mean."
    ),
]
ValueTypeOption = Annotated[
    str | None, typer.Option(
        "--value-type", help="By default the first that the terms take of packed, int8, bf16, fp32, exact, sign."
    ),
]
SupportOption = Annotated[
    str | None,
    typer.Option("--support", help="Of new weights: by default the first that the terms take of free, agreed, dense."),
]
DensityOption = Annotated[
    float | None,
    typer.Option("--density", help="For free support: of new weights the share to send; by default what terms take."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Digest of the model the update is relative to, as `fetch` says it.")
]
NoiseOption = Annotated[
    float, typer.Option("--noise-std", min=0.0, help="Standard deviation of the noise added to each value, if any.")
]


@dataclass(frozen=True, slots=True)
class GivenUpdate:
    """An update as somebody gives it on the command line: a file, and what is said of it."""

    change: SparseChange | dict[str, NDArray[np.floating]]
    weight: int
    support: SupportMode | None
    value_type: ValueType | None
    density: float | None
    base: Digest | None
    noise_std: float

    @classmethod
    def read(
        cls,
        file: Path,
        weight: int,
        support: str | None,
        value_type: str | None,
        density: float | None,
        model: str | None,
        noise_std: float,
    ) -> GivenUpdate:
        """Read the file and look at the options, before anybody is asked for anything.

        Raises:
            NotFoundError, MalformedError: the file is not there or holds other arrays, or an option does not fit.
        """
        from sfrl_secure.participant.wishes import SUPPORTS, VALUE_TYPES

        mode = next((each for each in SUPPORTS if each == support), None)
        if support is not None and mode is None:
            raise MalformedError(f"a support mode is one of {', '.join(SUPPORTS)}")
        kind = next((each for each in VALUE_TYPES if each == value_type), None)
        if value_type is not None and kind is None:
            raise MalformedError(f"a value type is one of {', '.join(VALUE_TYPES)}")
        base = None if model is None else parse_model_digest(model)
        check_file(file, "the update")
        with naming(file):
            change = read_update(file)
        if isinstance(change, SparseChange) and density is not None:
            raise MalformedError("`indices` say what is sent: --density is for new weights")
        if isinstance(change, SparseChange) and mode not in (None, "free"):
            raise MalformedError(f"`indices` are for free support: --support {mode} is for new weights")
        return cls(change, weight, mode, kind, density, base, noise_std)

    def signed(
        self, participant: Participant, opened: OpenRound | FinishedSegment, *, offline: bool = False
    ) -> SignedUpdate:
        """Encode and sign it for a round; the model is fetched where new weights were given.

        Args:
            offline: ask nobody.

        Raises:
            NotFoundError: what it takes is not kept here, and nobody may be asked.
            RoundStateError: `round_not_open`, `wrong_base`: there is no round, or one on another model.
            DeniedError, MalformedError: as `Participant.submit`, where nothing was sent.
        """
        from sfrl_secure.participant.membership import Training
        from sfrl_secure.participant.rounds import FinishedSegment

        if isinstance(opened, FinishedSegment):
            raise RoundStateError("round_not_open", "the segment's rounds are used up under the terms in force")
        if self.base is not None and opened.base_model != self.base:
            raise RoundStateError(
                "wrong_base", f"the open round {opened.number} begins from another model: fetch again and train on it"
            )
        with in_parameter_units(opened.terms):
            if isinstance(self.change, SparseChange):
                return participant.prepare_changes(
                    opened, self.change.indices, self.change.values, self.weight,
                    value_type=self.value_type, noise_std=self.noise_std,
                )  # fmt: skip
            if offline:
                participant.check_kept(opened, support=self.support)
            training = Training(participant.join(opened.segment), opened)
            with showing_bytes("fetching the model") as tell:
                training.fetch(on_progress=tell)
            return training.prepare(
                self.change, num_samples=self.weight, density=self.density, support=self.support,
                value_type=self.value_type, noise_std=self.noise_std,
            )  # fmt: skip


@contextmanager
def in_parameter_units(terms: SegmentTerms) -> Iterator[None]:
    """Say a limit that a refusal names in grid units in those of the values, too."""
    limits, unit = terms.limits, 2.0**-terms.model.grid_exponent
    most = {"norm_limit": limits.norm_max, "magnitude_limit": limits.magnitude_max}
    try:
        yield
    except DeniedError as denied:
        if denied.reason not in most or denied.entry_index is None:
            raise  # what was refused here says both units itself
        words = f"{denied}, which is {most[denied.reason] * unit:g} in parameter units"
        raise DeniedError(denied.reason, words, entry_index=denied.entry_index) from None
