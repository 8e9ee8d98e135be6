"""From a document to the log: written as a request, or signed and published in one go where the keys are at hand.

Runs in: cli.
Trusts: whoever types, and the profile that they name.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sfrl_secure.cli.operator_inputs import check_free, confirm, read_key, write_file
from sfrl_secure.errors import DeniedError

if TYPE_CHECKING:
    from sfrl_secure.audit.profile import OperatorProfile
    from sfrl_secure.ids import Digest
    from sfrl_secure.operating.publishing import Gathered
    from sfrl_secure.operating.signing import DetachedSignature, SigningRequest
    from sfrl_secure.rounds.state import FederationState

REQUEST_SUFFIX = ".request.json"
SIGNATURE_SUFFIX = ".signature.json"

_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")


def request_path(request: SigningRequest, out: Path | None) -> Path:
    """Where the request is written: as named, or after what it is."""
    kind, name = request.document.series
    parts = [kind, *([name[:24]] if name else []), f"v{request.document.version}"]
    return out or Path(_UNFIT.sub("-", "-".join(parts)) + REQUEST_SUFFIX)


def signature_path(request: Path, key_id: bytes) -> Path:
    """Where a signature is written: beside its request, with the key's first digits."""
    stem = request.name.removesuffix(REQUEST_SUFFIX).removesuffix(".json")
    return request.parent / f"{stem}.{key_id.hex()[:8]}{SIGNATURE_SUFFIX}"


def write_request(path: Path, request: SigningRequest, state: FederationState) -> dict[str, Any]:
    """Write a signing request, and give what there is to say about it.

    Raises:
        MalformedError: there is a file of this name.
    """
    from sfrl_secure.operating.document_words import title_of, words_of
    from sfrl_secure.operating.publishing import gather
    from sfrl_secure.operating.signing import format_request

    assert state.root is not None, "a state that was read has a root"
    needs = gather(request, (), state.root).needs
    signers = tuple(sorted({name for need in needs for name in need.could_sign}))
    raw = format_request(
        request, summary=tuple(words_of(request.document)), threshold=needs[0].threshold, signers=signers
    )
    write_file(path, raw)
    return {
        "request": str(path),
        "document": title_of(request.document),
        "digest": request.document.digest.hex(),
        "needs": [str(need) for need in needs],
        "next": [
            f"sfrl policy sign {shlex.quote(str(path))} --key KEY",
            f"sfrl policy publish {shlex.quote(str(path))} SIGNATURE... --profile PROFILE",
        ],
    }


@dataclass(frozen=True, slots=True)
class Handling:
    """What is done with a document: the options that every command of operators has.

    Attributes:
        keys: operators' key files to sign with; without one only a request is written.
        out: where; by default a name after what it is.
        yes: whether the question is answered already.
    """

    keys: Sequence[Path]
    out: Path | None
    yes: bool
    as_json: bool


def carry_out(
    request: SigningRequest,
    state: FederationState,
    profile: OperatorProfile | None,
    handling: Handling,
    more: dict[str, Any] | None = None,
) -> bool:
    """Write a request; with keys, sign it too; with enough of them and a profile, publish it. Say what is left to do.

    Args:
        more: what the caller has to say besides.

    Returns: whether it is published.

    Raises:
        SfrlError: as `publish`; nothing was published.
    """
    from sfrl_secure.operating.publishing import owners_of

    assert state.root is not None, "a state that was read has a root"
    said, as_json = dict(more or {}), handling.as_json
    path = request_path(request, handling.out)
    for line in _changes(request, state):
        typer.echo(line, err=True)
    if not handling.keys:
        say({**said, **write_request(path, request, state)}, as_json)
        _say_unpublished("a request was written, and nobody has signed it")
        return False
    signed = sign_with(request, handling.keys, yes=handling.yes, owners=owners_of(request, state.root))
    gathered = gather_checked(request, signed, state)
    if profile is not None and gathered.is_enough:
        say({**said, **publish_gathered(gathered, profile)}, as_json)
        return True
    files = [signature_path(path, each.signature.key_id) for each in signed]
    for each in (path, *files):
        check_free(each)
    said |= write_request(path, request, state)
    said |= {"signatures": write_signatures(files, signed), "needs": [str(need) for need in gathered.needs]}
    given = " ".join(shlex.quote(str(each)) for each in files)
    publishing = f"sfrl policy publish {shlex.quote(str(path))} {given}"
    said["next"] = (
        [f"{publishing} --profile PROFILE"] if gathered.is_enough
        else [said["next"][0], f"{publishing} SIGNATURE... --profile PROFILE"]
    )  # fmt: skip
    say(said, as_json)
    _say_unpublished(
        "enough have signed: publish it with the command above" if gathered.is_enough
        else f"too few have signed; it takes {'; and '.join(map(str, gathered.needs))}"
    )  # fmt: skip
    return False


def _say_unpublished(why: str) -> None:
    typer.echo(f"NOT published: {why}", err=True)


def _changes(request: SigningRequest, state: FederationState) -> Iterator[str]:
    """What a next version changes, and what to look at twice; a first version is said whole by `sign_with`."""
    from sfrl_secure.governance.documents import Order
    from sfrl_secure.operating.cautions import cautions_of
    from sfrl_secure.operating.changes import changes_of
    from sfrl_secure.operating.drafting import Ground
    from sfrl_secure.operating.order_meaning import meaning_of

    before = Ground(state, 0).in_force(request.document.series)
    # An order replaces none: its predecessor is only numbered before it.
    if before is not None and not isinstance(request.document, Order):
        for each in changes_of(before, request.document, state):
            yield f"{'changes':<12} {each}"
    meaning = meaning_of(request.document, state) if isinstance(request.document, Order) else ""
    if meaning:
        yield f"{'this is':<12} {meaning}"
    for each in cautions_of(request.document, state):
        yield f"{'CAUTION':<12} {each}"


def sign_with(
    request: SigningRequest, keys: Sequence[Path], *, yes: bool, owners: Mapping[Digest, str] | None = None
) -> list[DetachedSignature]:
    """Show what is signed, ask, and sign with each key.

    Args:
        owners: whose each key is, of those who may sign; None where nothing is known but the request.

    Raises:
        NotFoundError, DeniedError, MalformedError: a key file, or one of nobody who may sign; or nobody says yes.
    """
    from sfrl_secure.operating.document_words import words_of
    from sfrl_secure.operating.signing import sign_request

    opened = [read_key(each) for each in keys]
    for path, key in zip(keys, opened, strict=True):
        if owners is not None and key.public_key.key_id not in owners:
            known = ", ".join(sorted(set(owners.values())))
            raise DeniedError("threshold", f"the key file {path} is of nobody who may sign; the operators are {known}")
    for line in words_of(request.document):
        typer.echo(line, err=True)
    for key in opened:
        whose = (owners or {}).get(key.public_key.key_id, "")
        said = f"{key.public_key.suite} key {key.public_key.key_id.hex()}"
        typer.echo(f"{'would sign':<12} {f'{whose}, with {said}' if whose else said}", err=True)
    confirm("Sign exactly this?", yes=yes)
    return [sign_request(request, key) for key in opened]


def gather_checked(
    request: SigningRequest,
    signatures: Sequence[DetachedSignature],
    state: FederationState,
    files: Sequence[str] = (),
) -> Gathered:
    """Count signatures against the root in force; each must be of somebody who may sign, and hold.

    Args:
        files: where each was read, for an error to name.
    """
    from sfrl_secure.operating.publishing import gather

    assert state.root is not None, "a state that was read has a root"
    return gather(request, signatures, state.root, files)


def publish_gathered(
    gathered: Gathered,
    profile: OperatorProfile,
    *,
    state: FederationState | None = None,
    proof: Path | None = None,
) -> dict[str, Any]:
    """Append to the log over the operator's TLS identity, and give what there is to say.

    Args:
        state: what is in force now; None where only a copy of the log was read, which may be behind.
        proof: new file for the .tlog-proof.

    Raises:
        SfrlError: as `operating.publishing.publish`.
    """
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.operating.document_words import title_of
    from sfrl_secure.operating.following import connect
    from sfrl_secure.operating.publishing import publish

    policy = profile.open_trust_policy()
    with connect(profile) as client:
        published = publish(gathered, client, policy, state=state, now_us=SystemClock().now_us())
    said: dict[str, Any] = {
        "already_published" if published.was_there else "published": title_of(gathered.request.document),
        "index": published.index,
        "log_time_us": published.log_time_us,
        "tree_size": published.tree_size,
        "digest": gathered.request.document.digest.hex(),
        "signed_by": sorted(gathered.owners.get(each, f"key {each.hex()[:16]}") for each in published.signed_by),
    }
    if proof is not None:
        write_file(proof, published.proof, "--proof")
        said["proof"] = str(proof)
    return said


def write_signatures(files: Sequence[Path], signed: Sequence[DetachedSignature]) -> list[str]:
    """Write each signature into its file."""
    from sfrl_secure.operating.signing import format_signature

    for path, each in zip(files, signed, strict=True):
        write_file(path, format_signature(each))
    return [str(each) for each in files]


def say(said: dict[str, Any], as_json: bool) -> None:
    """Print one object, or a line for each thing that there is to say."""
    from sfrl_secure.operating.units import time_in_words

    if as_json:
        typer.echo(json.dumps(said))
        return
    for key, value in said.items():
        if key.endswith("_us"):
            typer.echo(f"{key.removesuffix('_us').replace('_', ' '):<12} {time_in_words(value)}")
            continue
        for each in value if isinstance(value, list) else [value]:
            typer.echo(f"{key.replace('_', ' '):<12} {each}")
