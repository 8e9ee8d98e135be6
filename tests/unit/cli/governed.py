"""A federation in memory that operators govern by the command line: its log in a folder, keys and profile in files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simulator import DOMAIN, Simulator

from sfrl_secure.storage.secrets import write_secret
from sfrl_secure.translog.policy import format_trust_policy
from sfrl_secure.wire.audit_service import FollowBatch


@dataclass(frozen=True)
class Governed:
    """Where everything lies.

    Attributes:
        log: folder of the published log; `publish` brings it up to date.
        profile: ann's.
    """

    sim: Simulator
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def profile(self) -> Path:
        return self.folder / "profile.toml"

    def key(self, name: str) -> Path:
        """An operator's key file."""
        return self.folder / f"{name}.key"

    def keys(self, *names: str) -> list[str]:
        """Options that sign with these operators' keys."""
        return [part for name in names for part in ("--key", str(self.key(name)))]


class SimulatedClient:
    """The log's service, without a network."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self.append = sim.log.append

    def follow(self, first_index: int, *, deadline_seconds: float) -> Batches:
        assert deadline_seconds > 0
        return Batches(FollowBatch(first_index, tuple(self._sim.log.raw[first_index:]), self._sim.log.signed.note))


class Batches:
    """One batch, and the end."""

    def __init__(self, batch: FollowBatch) -> None:
        self._batch = batch

    def __iter__(self) -> Iterator[FollowBatch]:
        yield self._batch

    def cancel(self) -> None:
        """Nothing is under way."""


def write_files(sim: Simulator, folder: Path) -> Governed:
    """Write keys, trust policy and profile."""
    for name, key in sim.operators.items():
        write_secret(folder / f"{name}.key", key.to_pem())
    (folder / "trust-policy.txt").write_bytes(format_trust_policy(sim.policy))
    for name in ("tls.crt", "tls.key", "service.crt"):
        (folder / name).write_text("-----BEGIN CERTIFICATE-----\n")
    (folder / "profile.toml").write_text(
        f'[operator]\nname = "ann"\ntrust_domain = "{DOMAIN}"\naudit_log = "127.0.0.1:1"\n'
        'gatekeepers = ["127.0.0.1:2"]\ncertificate = "tls.crt"\ntls_key = "tls.key"\nservice_ca = "service.crt"\n'
        'trust_policy = "trust-policy.txt"\nenrol_address = "127.0.0.1:3"\n'
    )
    return Governed(sim, folder)


@contextmanager
def connected(sim: Simulator) -> Iterator[SimulatedClient]:
    """Stands where `operating.following.connect` stands."""
    yield SimulatedClient(sim)
