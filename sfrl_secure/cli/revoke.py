"""`sfrl revoke`: a participant, for ever; or one TLS key of anybody.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.operator_acts import Handling, carry_out
from sfrl_secure.cli.operator_inputs import (
    JsonOption,
    KeysOption,
    OutOption,
    ProfileOption,
    ReasonOption,
    StateLogOption,
    YesOption,
    check_one,
    open_profile,
    open_state,
)
from sfrl_secure.errors import MalformedError

if TYPE_CHECKING:
    from sfrl_secure.ids import Digest, SpiffeId

_DIGEST = re.compile(r"[0-9a-f]{64}")


def revoke(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The participant to revoke.")] = None,
    tls_key: Annotated[
        str | None,
        typer.Option("--tls-key", help="Or one TLS key: a certificate file, or SHA-256 of the public key in hex."),
    ] = None,
    spiffe_id: Annotated[
        str | None, typer.Option("--spiffe-id", help="Whose TLS key it is, where the log does not know it.")
    ] = None,
    reason: ReasonOption = "",
    log: StateLogOption = None,
    profile: ProfileOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke a participant for ever, or one TLS key, of a participant, operator, auditor or service.

    From its entry on every gatekeeper refuses a revoked participant, on open connections too, and its updates in open
    rounds are dropped. Rounds that are published keep them: see `sfrl round reaggregate`. To suspend somebody who may
    come back, change the record: `sfrl policy draft participant NAME`.

    A stolen TLS key alone submits nothing. Revoke it with --tls-key: its owner keeps name and record, and gets another
    certificate. A participant's or an auditor's takes the threshold `revocation`; an operator's or a service's takes
    `governance`, so that one operator cannot shut out the others.

    For example: sfrl revoke rover-2 --reason "stolen" --profile operators/alice/profile.toml --key alice.key
    """
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.operating.acts import draft_key_revocation, draft_participant_revocation

    ways = "NAME of a participant, or --tls-key for one key"
    check_one("whom to revoke", name is not None, tls_key is not None, ways)
    named = open_profile(profile) if profile else None
    state = open_state(log, named)
    now_us = SystemClock().now_us()
    if name is not None:
        request = draft_participant_revocation(state, name, reason=reason, now_us=now_us)
    else:
        assert state.root is not None, "a state that was read has a root"
        digest, owner = _key_of(tls_key or "", state.root.trust_domain)
        owner = _spiffe_id(spiffe_id) if spiffe_id is not None else owner
        request = draft_key_revocation(state, digest, owner, reason=reason, now_us=now_us)
    carry_out(request, state, named, Handling(key or [], out, yes, as_json))


def _key_of(text: str, trust_domain: str) -> tuple[Digest, SpiffeId | None]:
    """The key's digest, and whose it is where a certificate says so."""
    from sfrl_secure.cli.inputs import read_input
    from sfrl_secure.crypto.svid import CERTIFICATE_BYTES_MAX, open_svid
    from sfrl_secure.errors import DeniedError
    from sfrl_secure.ids import parse_hex_digest

    if _DIGEST.fullmatch(text):
        return parse_hex_digest(text), None
    raw = read_input(Path(text), CERTIFICATE_BYTES_MAX, "the certificate")
    try:
        found = open_svid(raw, trust_domain)
    except DeniedError:
        raise MalformedError(
            f"{text} is neither a certificate of {trust_domain} nor 64 lower-case hexadecimal digits"
        ) from None
    return found.spki_sha256, found.spiffe_id


def _spiffe_id(text: str) -> SpiffeId:
    from sfrl_secure.ids import parse_spiffe_id

    return parse_spiffe_id(text)
