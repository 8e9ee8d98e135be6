"""What a round's step is taken from: its base and its server state, from memory where the last round made them.

Of each segment one model and one server state are kept: what a result stands on, then what came of it, on which the
next one will. After a start, a rollback or an order to derive again they are read from their objects.

Runs in: aggregator.
Trusts: the digests in the log. No object.
"""

from __future__ import annotations

from sfrl_secure.aggregation.models import ModelSnapshot, model_bytes, parse_model
from sfrl_secure.aggregation.server_state import ServerState, parse_server_state, state_bytes_max
from sfrl_secure.governance.terms import ModelTerms, SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.storage.objects import Objects


class Bases:
    """Models and server states by their digests, the last of each segment from memory. For one thread."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._models: dict[str, tuple[Digest, ModelTerms, ModelSnapshot]] = {}
        self._states: dict[str, tuple[Digest, ModelTerms, ServerState]] = {}

    def model(self, terms: SegmentTerms, digest: Digest) -> ModelSnapshot:
        """Give a model of the segment.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError, MalformedError: it is not here, or no model of these
                terms has this name.
        """
        kept = self._models.get(terms.segment)
        if kept is not None and kept[:2] == (digest, terms.model):
            return kept[2]
        # What was there goes before something as large comes.
        del kept
        self._models.pop(terms.segment, None)
        manifest = terms.model.manifest
        raw = self._objects.get(digest, model_bytes(manifest))
        found = parse_model(raw, manifest, terms.model.grid_exponent)
        # Kept whatever comes of it: what waits for an update is tried again, and must not read 45 MB each time.
        self._models[terms.segment] = digest, terms.model, found
        return found

    def server_state(self, terms: SegmentTerms, digest: Digest | None) -> ServerState | None:
        """Give a server state of the segment; None, which stands for zeros or for none at all, where there is no name.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError, MalformedError: it is not here, or no state of these terms
                has this name.
        """
        if digest is None:
            return None
        assert terms.server is not None, "terms without a server step begin with no state"
        kept = self._states.get(terms.segment)
        if kept is not None and kept[:2] == (digest, terms.model):
            return kept[2]
        del kept
        self._states.pop(terms.segment, None)
        coordinates = terms.model.manifest.coordinates
        raw = self._objects.get(digest, state_bytes_max(terms.server, coordinates))
        found = parse_server_state(raw, terms.server, coordinates, terms.model.grid_exponent)
        self._states[terms.segment] = digest, terms.model, found
        return found

    def keep(
        self,
        terms: SegmentTerms,
        model: tuple[Digest, ModelSnapshot],
        state: tuple[Digest | None, ServerState | None],
    ) -> None:
        """Keep what came of a round, under its names: the next one stands on it."""
        self._models[terms.segment] = model[0], terms.model, model[1]
        digest, found = state
        if digest is None or found is None:
            self._states.pop(terms.segment, None)
        else:
            self._states[terms.segment] = digest, terms.model, found
