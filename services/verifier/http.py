"""The witness over HTTP: `add-checkpoint` and the monitoring endpoint, as tlog-witness has them.

Public on purpose: the request is authenticated by the log's signatures inside it, and everything given out is public.

Format: c2sp.org/tlog-witness.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sfrl_secure.errors import NotFoundError, UncertainStateError
from sfrl_secure.services.verifier.witness import Witness
from sfrl_secure.translog.witness import ADD_CHECKPOINT_BYTES_MAX

TEXT = "text/plain; charset=utf-8"


def witness_app(witness: Witness, on_uncertain: Callable[[UncertainStateError], None]) -> Starlette:
    """The ASGI application.

    Args:
        on_uncertain: told when the witness's state became uncertain; it stops the process.
    """

    async def add_checkpoint(request: Request) -> Response:
        body = await _bounded_body(request)
        if body is None:
            return Response(f"a request is at most {ADD_CHECKPOINT_BYTES_MAX} bytes\n", 400, media_type=TEXT)
        try:
            answer = await run_in_threadpool(witness.add_checkpoint, body)
        except UncertainStateError as error:
            on_uncertain(error)
            return Response("the witness has stopped\n", 503, media_type=TEXT)
        return Response(answer.body, answer.status, headers={"content-type": answer.content_type})

    async def latest(request: Request) -> Response:
        try:
            note = witness.latest(request.path_params["origin"])
        except NotFoundError as error:
            return Response(f"{error}\n", 404, media_type=TEXT)
        return Response(note, media_type=TEXT, headers={"cache-control": "no-store"})

    return Starlette(
        routes=[
            Route("/witness/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/witness/{origin}/checkpoint", latest, methods=["GET"]),
        ]
    )


async def _bounded_body(request: Request) -> bytes | None:
    """Read the body, but not a byte more than is allowed; None where there is more."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > ADD_CHECKPOINT_BYTES_MAX:
                return None
            parts.append(part)
    except ClientDisconnect:
        return None
    return b"".join(parts)
