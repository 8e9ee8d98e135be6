"""Domain tags: what a hash or a signature is for, so that one is never taken for another.

Runs in: everything.
Trusts: nothing.
"""

from typing import Final

KEY_ID: Final = b"sfrl-key/v1\n"
"""Before suite and public keys in a key id."""

POSSESSION: Final = b"sfrl-secure/v1/possession\n"
"""Before what a proof of possession signs."""

DECISION_INPUT: Final = b"sfrl-secure/v1/decision-input\n"
"""Before the salt and the input that a decision record commits to."""
