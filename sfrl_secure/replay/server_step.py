"""The server step: from what the rule gives to what is added to the base, and the state that it leaves.

Format: proto/README.md, "Server step".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import numpy as np

from sfrl_secure.replay.aggregation_terms import ADAPTIVE, MOMENTUM, Server
from sfrl_secure.replay.arithmetic import cut, divide_half_even, pieces
from sfrl_secure.replay.payload_codes import Integers

_ONE = 2**16


def state_size(server: Server, coordinates: int) -> int:
    """How many integers a state has: m, and under `adaptive/v1` s behind it."""
    return 2 * coordinates if server.name == ADAPTIVE else coordinates


def server_step(server: Server, a: Integers, state: Integers) -> tuple[Integers, Integers]:
    """Give what is added to the base, and the state after the step.

    Args:
        a: of every coordinate, magnitudes at most 2**40.
        state: `state_size` integers, magnitudes at most 2**40.
    """
    count = len(a)
    u, after = np.empty_like(a), np.empty_like(state)
    for piece in pieces(count):
        m = state[piece]
        if server.name == MOMENTUM:
            m = cut(divide_half_even(server.decay * m, _ONE) + a[piece])
            u[piece] = cut(divide_half_even(server.rate * m, _ONE))
        else:
            second = slice(piece.start + count, piece.stop + count)
            m = divide_half_even(server.decay * m + (_ONE - server.decay) * a[piece], _ONE)
            s = np.maximum(server.decay_max * state[second] // _ONE, np.abs(a[piece]))
            u[piece] = cut(divide_half_even(server.rate * m, np.maximum(s, server.floor)))
            after[second] = s
        after[piece] = m
    return u, after
