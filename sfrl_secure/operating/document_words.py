"""A governance document in words, line by line: everything that whoever signs it agrees to.

Only what the document itself says stands here, in people's units. Nothing is left out but the digits of public keys,
for which their key ids stand, and of times what is below a millisecond. Every text in a document is bounded printable
ASCII, so no line steers a terminal.

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.documents import (
    Document,
    GenesisDocument,
    JoinDocument,
    KeyRevocation,
    Order,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    SegmentTerms,
    ServicesDocument,
)
from sfrl_secure.governance.orders import (
    AcceptTarget,
    ExcludeTarget,
    NoTarget,
    OrderAction,
    OverrideTarget,
    ReaggregateTarget,
    RollbackTarget,
)
from sfrl_secure.governance.terms import LeakageBound
from sfrl_secure.operating.aggregation_cautions import aggregation_cautions
from sfrl_secure.operating.aggregation_words import aggregation_parts, next_mask_words
from sfrl_secure.operating.units import count, format_duration, format_size, in_parameter_units, time_in_words

KIND_WORDS = {
    "root": "the federation's root",
    "genesis": "genesis",
    "services": "services and auditors",
    "rules": "the rules",
    "segment-terms": "terms of segment",
    "participant": "record of participant",
    "join": "invitation of",
    "key-revocation": "revocation of TLS key",
    "order": "order for segment",
}


def title_of(document: Document) -> str:
    """What a document is, in a few words."""
    kind, name = document.series
    return f"{KIND_WORDS[kind]}{f' {name}' if name else ''}, version {document.version}"


def words_of(document: Document) -> Iterator[str]:
    """Say everything that a document says."""
    yield line("document", title_of(document))
    yield line("federation", document.federation_id.hex())
    replaced = f"version {document.version - 1}, {document.previous.hex()}"
    yield line("replaces", replaced if document.version > 1 else "nothing: it is the first")
    if not isinstance(document, GenesisDocument):
        yield line("expires", time_in_words(document.expires_us))
    match document:
        case RootDocument():
            yield from root_words(document)
        case ServicesDocument():
            yield from _services(document)
        case RulesDocument():
            yield from _rules_caution(document)
            yield line("rules", "exactly this text:")
            yield from (f"  {number:>4}  {text}" for number, text in enumerate(document.cedar.split("\n"), 1))
        case SegmentTerms():
            yield from terms_words(document)
            yield from _manifest(document)
            yield from (line("CAUTION", caution) for caution in aggregation_cautions(document))
        case ParticipantRecord():
            yield line("state", document.state + _because(document.reason))
            yield line("cleared", f"clearance {document.clearance}; groups {names(document.groups)}")
            yield line("signs with", key_words(document.key))
        case JoinDocument():
            yield line("invites", f"{document.name}, once: whoever holds the join token of key "
                                  f"{document.join_key.key_id.hex()[:16]} may record a key under this name")
            yield line("grants", f"clearance {document.clearance}; groups {names(document.groups)}; "
                                 f"until {time_in_words(document.record_expires_us)}")
        case KeyRevocation():
            yield line("revokes", f"the TLS key {document.spki_sha256.hex()}, for ever")
            yield line("held by", document.spiffe_id + _because(document.reason))
        case Order():
            yield line("orders", order_words(document) + _because(document.reason))
        case GenesisDocument():
            yield line("origin", document.origin)
            yield from root_words(document.root)
    yield line("digest", document.digest.hex())


def line(key: str, text: str) -> str:
    """One line, its text where those of all others begin."""
    return f"{key:<12} {text}"


def names(listed: Iterable[str]) -> str:
    """A set in words."""
    return ", ".join(sorted(listed)) or "none"


def key_words(key: PublicKey) -> str:
    """A public key: its suite and id."""
    return f"{key.suite} key {key.key_id.hex()}"


def root_words(document: RootDocument) -> Iterator[str]:
    """Operators and thresholds."""
    needed = document.thresholds
    yield line("governs", f"trust domain {document.trust_domain}, log {document.log_host}")
    yield line(
        "thresholds",
        f"of {count(len(document.operators), 'operator')} it takes: root {needed.root}, governance "
        f"{needed.governance}, enrolment {needed.enrolment}, revocation {needed.revocation}",
    )
    for name in sorted(document.operators):
        yield line("operator", f"{name}: {key_words(document.operators[name])}")


def _services(document: ServicesDocument) -> Iterator[str]:
    yield line("connect by", f"{names(document.key_exchange)}: a connection by any other key exchange is refused")
    for each in document.services:
        yield line("service", f"{each.spiffe_id.role}/{each.spiffe_id.name}: {key_words(each.key)}")
    for each in document.auditors:
        yield line("auditor", f"{each.spiffe_id.name}: {key_words(each.key)}")


def _rules_caution(document: RulesDocument) -> Iterator[str]:
    # Cedar is loaded where rules are shown: no other command waits for it.
    from sfrl_secure.operating.rule_words import shut_out

    try:
        because = shut_out(document.cedar)
    except MalformedError:
        because = "they are not Cedar that fits the schema: the log refuses them"
    if because:
        yield line("CAUTION", because)


def terms_words(terms: SegmentTerms) -> Iterator[str]:
    """A segment's terms, norm and magnitude in parameter units."""
    manifest, limits, rounds, exponent = terms.model.manifest, terms.limits, terms.round, terms.model.grid_exponent
    yield line("granted", f"groups {names(terms.groups)}; they may {names(terms.operations)}")
    yield line(
        "model",
        f"{count(manifest.coordinates, 'coordinate')} in {count(len(manifest.tensors), 'tensor')} on a grid of "
        f"2^-{exponent}, from {terms.model.initial.hex()}",
    )
    yield line("tensors", f"updates may touch {', '.join(terms.tensors)}")
    yield line(
        "update",
        f"{' or '.join(sorted(terms.value_types))}, support {' or '.join(sorted(terms.support_modes))}, signed "
        f"{' or '.join(sorted(terms.suites))}",
    )
    yield line(
        "",
        f"{terms.leakage.nonzeros_min} to {limits.nonzeros_max} nonzeros in at most "
        f"{format_size(limits.payload_bytes_max)}",
    )
    yield line(
        "",
        f"norm at most {in_parameter_units(limits.norm_max, exponent)}, one value at most "
        f"{in_parameter_units(limits.magnitude_max, exponent)}, weight {terms.leakage.weight_min} to "
        f"{limits.weight_max}",
    )
    if terms.mask is not None:
        yield line("mask", f"agreed support is {mask_words(terms.mask)}")
    if terms.relay_groups:
        yield line("relays", f"groups {names(terms.relay_groups)} may bring others' updates")
    yield line(
        "quota",
        f"{count(terms.quota.updates_max, 'update')} and {format_size(terms.quota.bytes_max)} of one participant "
        f"within {format_duration(terms.quota.window_us)}",
    )
    yield line("leakage", leakage_words(terms))
    yield line(
        "rounds",
        f"{rounds.cohort_min} to {rounds.cohort_max} updates within {format_duration(rounds.duration_us)}, "
        f"{rounds.rounds_max} rounds in all",
    )
    for key, words in aggregation_parts(terms):
        if key == "rule" or getattr(terms, key) is not None:
            yield line(key, words)
    yield line("privacy", f"{terms.privacy}, sensitivity {terms.sensitivity}")
    yield line("kept", f"updates {terms.retention_days} days, refused payloads {terms.evidence_days} days")


def _manifest(terms: SegmentTerms) -> Iterator[str]:
    """The model to its last constant: a segment keeps it for ever."""
    manifest = terms.model.manifest
    for tensor in manifest.tensors:
        yield line("tensor", f"{tensor.name}: {' x '.join(map(str, tensor.shape))} {tensor.dtype}")
    for name, values in manifest.constants.items():
        unit = f"in units of 2^-{manifest.constants_exponent}"
        yield line("constants", f"{name}, {unit}: {', '.join(map(str, values)) or 'none'}")


def leakage_words(terms: SegmentTerms) -> str:
    """What the gate against leakage asks of an update, beside nonzeros and weight."""
    noise = terms.leakage.noise_std_min
    said = [f"noise at least {in_parameter_units(noise, terms.model.grid_exponent)}" if noise else "no noise asked for"]
    said += [f"touched {bound_words(each)}" for each in terms.leakage.rows]
    said += [f"raised and lowered {bound_words(each)}" for each in terms.leakage.labels]
    return "; ".join(said)


def bound_words(bound: LeakageBound) -> str:
    """A tensor's axis and the fewest indices along it."""
    return f"{bound.tensor} axis {bound.axis}: at least {bound.least}"


def mask_words(mask: MaskTerms | None) -> str:
    """A mask: how many coordinates, and its object."""
    if mask is None:
        return "none"
    return f"{count(mask.nonzeros, 'coordinate')} of {mask.digest.hex()}; {next_mask_words(mask.next)}"


def order_words(order: Order) -> str:
    """What an order does, in one sentence."""
    match order.target:
        case NoTarget() if order.action is OrderAction.HALT:
            return f"halt {order.segment}: no round opens and no update is admitted until it is resumed"
        case NoTarget():
            return f"resume {order.segment}"
        case ExcludeTarget(update):
            return f"exclude the update {update.hex()} from {order.segment}"
        case RollbackTarget(model):
            return f"roll {order.segment} back to the model {model.hex()}"
        case ReaggregateTarget(from_round, reveals):
            told = f"this reveals what {', '.join(reveals)} sent" if reveals else "this reveals nobody's updates"
            return f"derive the models of {order.segment} from round {from_round} on again; {told}"
        case AcceptTarget(index, code):
            return f"accept the finding {code} at entry {index}"
        case OverrideTarget(decision, decided_class):
            return f"override the decision {decision.hex()} of {order.segment}: its class is {decided_class}"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
