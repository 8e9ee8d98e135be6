"""The demo's end: one object for machines, a table for people.

Format: the object of `sfrl demo --json`, README.md.

Runs in: demo, cli.
Trusts: nothing; it repeats what others found.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from sfrl_secure.demo.liars import Lie
from sfrl_secure.demo.reading import LogSummary
from sfrl_secure.demo.task import METRIC_NAME
from sfrl_secure.services.federation.folder import FederationFolder
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.translog.note import ED25519
from sfrl_secure.translog.policy import parse_trust_policy

_POLICY_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class TamperingFound:
    """One altered copy and the verifier's report on it."""

    what: str
    verification: dict[str, Any]

    @property
    def is_found(self) -> bool:
        """Whether the verifier said that it is false."""
        return bool(self.verification["exit_code"] == 1 and self.verification["verdict"] == "false")

    @property
    def said(self) -> str:
        """Its first finding, in one line."""
        first = (self.verification.get("findings") or [{}])[0]
        places = [f"entry {first['index']}"] if first.get("index") is not None else []
        places += [str(first["subject"])[:32]] if first.get("subject") else []
        return f"{first.get('code', 'nothing')}: {', '.join(places)}"


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo did and found."""

    folder: FederationFolder
    participants: int
    rounds: int
    summary: LogSummary
    bytes_of_updates: list[int]
    dense_bytes: int
    metric_first: float
    metric_last: float
    metric_alone: float
    metric_dense: float
    lies: list[Lie]
    receipt: str
    verification: dict[str, Any]
    tampering: list[TamperingFound]
    seconds: float

    @property
    def verdict(self) -> str:
        """The verifier's."""
        return str(self.verification["verdict"])

    @property
    def holds(self) -> bool:
        """Whether everything came out as it should: verdict, liars, altered copies."""
        return (
            self.verdict == "verified"
            and all(lie.got == lie.expected for lie in self.lies)
            and all(each.is_found for each in self.tampering)
        )

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`; folders absolute."""
        policy = parse_trust_policy(read_bounded(self.folder.trust_policy, _POLICY_BYTES_MAX))
        return {
            "rounds": self.rounds,
            "participants": self.participants,
            "admitted": self.summary.admitted,
            "refused": dict(sorted(self.summary.refused.items())),
            "update_bytes_median": int(statistics.median(self.bytes_of_updates)),
            "dense_bytes": self.dense_bytes,
            "metric": METRIC_NAME,
            "metric_first": round(self.metric_first, 6),
            "metric_last": round(self.metric_last, 6),
            "metric_alone": round(self.metric_alone, 6),
            "metric_dense": round(self.metric_dense, 6),
            "lies": [
                {"lie": lie.name, "expected": lie.expected, "got": lie.got, "entry": lie.entry_index}
                for lie in self.lies
            ],
            "altered": [
                {
                    "what": each.what,
                    "found": each.is_found,
                    "said": each.said,
                    "exit_code": each.verification["exit_code"],
                }
                for each in self.tampering
            ],
            "log_size": self.summary.size,
            "log_dir": str(self.folder.log_dir.absolute()),
            "log_vkey": next(key.vkey for key in policy.logs[0].keys if key.key_type == ED25519),
            "objects_dir": str(self.folder.objects_dir.absolute()),
            "trust_policy": str(self.folder.trust_policy.absolute()),
            "receipt": self.receipt,
            "verdict": self.verdict,
            "seconds": round(self.seconds, 1),
        }

    def print_to(self, console: Console) -> None:
        """The tables for people."""
        median = int(statistics.median(self.bytes_of_updates))
        facts = Table(title="Five rovers, one sparse model", show_header=False, title_justify="left")
        facts.add_row("rounds", f"{self.rounds}, {self.summary.admitted} updates admitted")
        share = self.dense_bytes // median
        facts.add_row("one update", f"{median:,} bytes: 1/{share} of the dense {self.dense_bytes:,}")
        facts.add_row(METRIC_NAME, f"{self.metric_first:.3f} before, [bold]{self.metric_last:.3f}[/bold] after")
        facts.add_row("  rovers alone, on average", f"{self.metric_alone:.3f}")
        facts.add_row("  dense federated averaging", f"{self.metric_dense:.3f}")
        console.print(facts)
        liars = Table(title="Liars", title_justify="left")
        for column in ("what was tried", "refused for", "where it stands"):
            liars.add_column(column)
        for lie in self.lies:
            where = "counted" if lie.entry_index is None else f"entry {lie.entry_index}"
            colour = "green" if lie.got == lie.expected else "red"
            liars.add_row(lie.name, f"[{colour}]{lie.got}[/{colour}]", where)
        console.print(liars)
        altered = Table(title="Altered copies of the log", title_justify="left")
        for column in ("altered", "verdict", "what is false, and where"):
            altered.add_column(column)
        for each in self.tampering:
            colour = "green" if each.is_found else "red"
            altered.add_row(each.what, f"[{colour}]{each.verification['verdict']}[/{colour}]", each.said)
        console.print(altered)
        console.print(self._verification_table())
        colour = "green" if self.holds else "red"
        console.print(
            f"[bold {colour}]{self.verdict}[/bold {colour}]: {self.summary.size} entries, {self.rounds} rounds, "
            f"{self.seconds:.0f} s. Look at {self.folder.root}"
        )

    def _verification_table(self) -> Table:
        found = self.verification
        own = set(found["witnesses_same_operator"])
        near = " (on the log's own machine)"
        witnesses = [f"{name}{near if name in own else ''}" for name in found["witnesses"]]
        table = Table(
            title="The verifier, from log, objects and trust policy alone", show_header=False, title_justify="left"
        )
        table.add_row("history", f"{found['size']} entries under root {found['root'][:32]}...")
        table.add_row("witnesses", f"quorum {'met' if found['quorum_met'] else 'NOT met'}: {', '.join(witnesses)}")
        table.add_row("rounds", f"{found['rounds']}, {found['models']} models derived again bit for bit")
        table.add_row("results", "sound" if found["results_sound"] else "not sound")
        table.add_row("conduct", "clean" if found["conduct_clean"] else "not clean")
        refused, on_word = sum(found["refused"].values()), found["refusals_on_word"]
        table.add_row("refusals", f"{refused}, {on_word} of them on word; {found['refusals_counted']} more counted")
        return table
