"""The first identity of a service that a services document newly names: into the files that its configuration names.

From then on the service renews by itself (`renewal`).

Format: proto/README.md, "Enrolment".

Runs in: cli, on the machine of the new service.
Trusts: whoever wrote the configuration. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.clock import Clock
from sfrl_secure.errors import MalformedError
from sfrl_secure.participant.first_identity import Connect, Door, FirstIdentity, connect_to_door, get_first_identity
from sfrl_secure.services.config import CONFIGS, SigningFile, read_config
from sfrl_secure.services.renewal import federation_id_of, spiffe_id_of


def enrol_service(
    role: str, name: str, path: Path, enrol_address: str, clock: Clock, *, connect: Connect = connect_to_door
) -> FirstIdentity:
    """Get the first identity of the service of a configuration, and write certificate and TLS key where it names them.

    Args:
        role: `gatekeeper`, `aggregator`, `audit_log` or `verifier`; `name`, its name in the services document.
        enrol_address: where newcomers are taken.

    Raises:
        NotFoundError, DeniedError, MalformedError: a file is not there, can be read by others, or is something else; it
            is another service's configuration; it has a certificate already.
        SfrlError: as `get_first_identity`.
    """
    config = read_config(path, CONFIGS[role])
    spiffe_id = spiffe_id_of(config)
    if config.name != name:
        raise MalformedError(f"{path} is the configuration of {spiffe_id}, and another service is to be enrolled")
    if config.tls.certificate.exists():
        raise MalformedError(
            f"{spiffe_id} has a certificate already, {config.tls.certificate}: a service that runs renews its own"
        )
    signing: SigningFile | None = getattr(config, "signing", None)
    if signing is None:
        raise MalformedError(f"{path} has no table [signing]: a service asks for its identity with its signing key")
    door = Door(
        enrol_address, config.trust_domain, federation_id_of(config), config.read_service_roots(),
        config.open_trust_policy(),
    )  # fmt: skip
    return get_first_identity(
        spiffe_id, signing.open(), door, clock, certificate=config.tls.certificate, tls_key=config.tls.key,
        connect=connect,
    )  # fmt: skip
