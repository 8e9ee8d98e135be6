"""The objects that an entry of the log names, and how long each of them may be.

Payloads of admitted updates, those of refused ones that were kept as evidence, masks, aggregates, models, those of
clusters among them, and states of the server's step. Whether an entry has effect is not asked: an object too many does
no harm, and what a length bounds is memory.

Format: proto/README.md, "Statements", "Aggregation" and "Codec".

Runs in: auditors' machines.
Trusts: nothing. Lengths are claims of entries that nobody has verified here, and are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import Evidence, ModelPublished, Statement, UpdateAdmitted, UpdateRefused
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.limits import OBJECT_BYTES_MAX, OBJECT_HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX
from sfrl_secure.wire.content import Content, parse_content
from sfrl_secure.wire.entries import parse_entry

_STREAM_PREFIX = "segment/"

Named = tuple[Digest, int]
"""An object, and how many bytes it has at most."""


@dataclass(frozen=True, slots=True)
class ObjectLengths:
    """How long objects of a segment may be, under the widest of its terms so far; 0 where no terms have such.

    Attributes:
        model: a model, or an aggregate.
        state: a state of the server's step, which has up to two values a coordinate.
        mask: a mask of agreed updates.
    """

    model: int = 0
    state: int = 0
    mask: int = 0

    def under(self, terms: SegmentTerms) -> ObjectLengths:
        """With these terms among them."""
        coordinates = terms.model.manifest.coordinates
        state = 0 if terms.server is None else min(_longest(2 * coordinates), OBJECT_BYTES_MAX)
        mask = 0 if terms.mask is None else _longest(terms.mask.nonzeros)
        return ObjectLengths(max(self.model, _longest(coordinates)), max(self.state, state), max(self.mask, mask))


def objects_named(raw: bytes, segments: dict[str, ObjectLengths]) -> Iterator[Named]:
    """The objects that an entry names; `segments` learns of the terms."""
    try:
        content: Content = parse_content(parse_entry(raw).envelope)
    except MalformedError:
        return
    if isinstance(content, SegmentTerms):
        segments[content.segment] = segments.get(content.segment, ObjectLengths()).under(content)
        yield content.model.initial, _longest(content.model.manifest.coordinates)
        if content.mask is not None:
            yield content.mask.digest, _longest(content.mask.nonzeros)
    elif isinstance(content, Statement):
        match content.body:
            case UpdateAdmitted(update=update):
                yield update.payload_sha256, min(update.payload_bytes, PAYLOAD_BYTES_MAX)
            case UpdateRefused(update=update, evidence=Evidence.OBJECT) if update is not None:
                yield update.payload_sha256, min(update.payload_bytes, PAYLOAD_BYTES_MAX)
            case ModelPublished() as body:
                segment = content.stream.removeprefix(_STREAM_PREFIX)
                yield from _published(body, segments.get(segment, ObjectLengths()))


def _published(body: ModelPublished, lengths: ObjectLengths) -> Iterator[Named]:
    models = (body.aggregate, body.model, *(cluster.model for cluster in body.clusters))
    named = [(digest, lengths.model) for digest in models]
    named += [(body.server_state, lengths.state)] if body.server_state is not None else []
    named += [(body.next_mask, lengths.mask)] if body.next_mask is not None else []
    # Nothing of a kind that no terms of the segment have.
    yield from ((digest, longest) for digest, longest in named if longest)


def _longest(values: int) -> int:
    """No object of so many values, or coordinates, is longer."""
    return 8 * values + OBJECT_HEADER_BYTES_MAX
