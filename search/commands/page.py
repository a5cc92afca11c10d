"""MLflow's page over the runs: ``ui``."""

from __future__ import annotations

from typing import Annotated

import typer

from search.commands.options import DIRECTORY, RUN, Directory, TrackingUri
from search.commands.output import note, put


def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="N", help="Port of the page.", rich_help_panel=RUN)
    ] = 5000,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to serve at.", rich_help_panel=RUN)
    ] = "127.0.0.1",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.", rich_help_panel=RUN)
    ] = True,
    directory: Directory = DIRECTORY,
    tracking_uri: TrackingUri = None,
) -> None:
    """Open MLflow's page over sweeps and trials; Ctrl-C ends it."""
    from search.tracking.ui import serve

    note("starting MLflow's page; Ctrl-C ends it")
    serve(directory, tracking_uri, host, port, browser, announce=put)
