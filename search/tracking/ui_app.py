"""MLflow's server with one page more: it opens the pages of model training instead of those of generative AI.

Which of the two MLflow shows is kept by the browser, for each address of a server, and links to runs do not say it. The
start page sets what is not set yet, keeps the assistant closed, which covers the right columns, and goes on to the
address behind the ``#``. MLflow finds this application by the entry point ``paretoprune`` of the group ``mlflow.app``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mlflow.server.fastapi_app import app as mlflow_app

from search.tracking.ui_views import START

SETTINGS = {"mlflow.workflowType_v1": "machine_learning", "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True}
"""What the browser keeps, by key (read from MLflow 3.17); should they change, the page opens as MLflow has it."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def start_page() -> str:
    """Write the start page.

    Returns:
        HTML.
    """
    lines = [
        f"if (localStorage.getItem({json.dumps(key)}) === null) "
        f"localStorage.setItem({json.dumps(key)}, {json.dumps(json.dumps(value))});"
        for key, value in SETTINGS.items()
    ]
    script = "\n".join([*lines, "location.replace('/' + location.hash);"])
    return f'<!doctype html><meta charset="utf-8"><title>MLflow</title><script>\n{script}\n</script>\n'


class WithStartPage:
    """An ASGI application with the start page in front of another one.

    Args:
        inner: The other application.
    """

    def __init__(self, inner: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._inner = inner

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request.

        Args:
            scope: What is asked.
            receive: Gives the body.
            send: Takes the answer.
        """
        if scope["type"] != "http" or scope["path"] != START:
            await self._inner(scope, receive, send)
            return
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": start_page().encode()})


app = WithStartPage(mlflow_app)
"""What MLflow serves."""
