"""`sfrl policy`: who may do what. Drafts are checked and built, signed where the keys are, published and compared.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import typer

from sfrl_secure.cli.policy_diff import diff
from sfrl_secure.cli.policy_root import root
from sfrl_secure.cli.policy_show import show
from sfrl_secure.cli.policy_sign import publish, sign
from sfrl_secure.cli.policy_write import build, check, draft, key

app = typer.Typer(
    help="Who may do what: draft, check, build, sign, publish, compare.\n\n"
    "A change goes: `draft` writes what is in force as TOML; edit it; `check` finds what is wrong; `build` makes the "
    "document and a signing request; each operator runs `sign` where the key is; `publish` takes the signatures to the "
    "log. `diff` says at any point what would change for whom.",
    no_args_is_help=True,
)

for command in (show, draft, check, build, diff, sign, publish, root, key):
    app.command()(command)
