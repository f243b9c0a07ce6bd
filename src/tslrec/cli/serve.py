"""Serves trained recommenders over HTTP: recommendations, similar items, a search for items, and a page to try them.

  tslrec serve artifacts/runs/NAME
  tslrec serve exported/beauty --port 8080 --engine onnxruntime
  tslrec serve exported/base exported/tslrec --reload-token-file token.txt

A folder is what `tslrec export` wrote, or a finished run. The first one answers requests that name no model. The
server listens on loopback unless --host says otherwise; it has no login, so put a proxy with TLS and a login in front
of it before others can reach it. SIGTERM lets it finish the requests that it has, and end with exit code 0.
docs/serving.md describes the API.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from pathlib import Path

from tslrec.system.errors import UserError
from tslrec.system.optional_packages import require

log = logging.getLogger(__name__)

SUMMARY = "serve trained recommenders over HTTP, with a page to try them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="exports or finished runs")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one; default 8000")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1, loopback")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="on loopback, answer to this name too, such as that of a proxy; may be given several times",
    )
    parser.add_argument(
        "--engine", default="auto", metavar="NAME", help="pytorch, onnxruntime, …: see tslrec.load; default auto"
    )
    parser.add_argument(
        "--batch-ms", type=float, default=0.0, metavar="MS", help="under load, wait for more; default 0"
    )
    parser.add_argument(
        "--max-batch", type=int, default=64, metavar="N", help="histories computed together; default 64"
    )
    parser.add_argument("--max-body", type=int, default=2**20, metavar="BYTES", help="of a request; default 1 MiB")
    parser.add_argument("--max-history", type=int, default=1000, metavar="N", help="items of a history; default 1000")
    parser.add_argument("--max-k", type=int, default=100, metavar="N", help="length of a list; default 100")
    parser.add_argument("--concurrency", type=int, default=256, metavar="N", help="requests at a time; default 256")
    parser.add_argument(
        "--reload-token-file",
        type=Path,
        metavar="FILE",
        help="holds the token that allows POST /reload; default: the variable TSLREC_RELOAD_TOKEN, else nobody may",
    )


def run(arguments: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        UserError: if an argument is wrong, the port is in use, or a folder cannot be served.
    """
    check(arguments)
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        require(package, "serve")
    from tslrec.serving.server.app import Settings, create_app
    from tslrec.serving.server.hosts import names_for
    from tslrec.serving.server.limits import Limits
    from tslrec.serving.server.models import Models, names_of, open_model
    from tslrec.serving.server.process import listen, make_server
    from tslrec.serving.server.reloading import read_token

    token = read_token(arguments.reload_token_file)
    listening = listen(arguments.host, arguments.port)
    with listening:
        host, port = listening.getsockname()[:2]
        names = names_for(host, arguments.allow_host)
        if names is None and arguments.allow_host:
            raise UserError(f"--allow-host: {host} is not loopback, where every name is answered; leave it out")
        folders = zip(arguments.folders, names_of(arguments.folders), strict=True)
        served = [open_model(folder, name, arguments.engine) for folder, name in folders]
        limits = Limits(
            body=arguments.max_body,
            history=arguments.max_history,
            k=arguments.max_k,
            concurrency=arguments.concurrency,
        )
        settings = Settings(limits, arguments.batch_ms / 1000, arguments.max_batch, token, names)
        app = create_app(Models(served), settings)
        for each in served:
            log.info(f"{each.name}: {each.recommender!r}")
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        settle()
        make_server(app, lambda: log.info(f"serving at {address}")).run(sockets=[listening])
    log.info("stopped; every accepted request was answered")


def settle() -> None:
    """Prepares the process for many short computations beside an event loop."""
    # What is loaded stays: the garbage collector need not look at millions of ids again and again.
    gc.collect()
    gc.freeze()
    torch = sys.modules.get("torch")
    if torch is not None:
        # One request is too small to share; a second thread would take the core of the event loop.
        torch.set_num_threads(1)


def check(arguments: argparse.Namespace) -> None:
    """Refuses numbers that no server can work with.

    Raises:
        UserError: for the first one.
    """
    if not 0 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port}: must be from 0 to 65535")
    if not 0 <= arguments.batch_ms <= 1000:
        raise UserError(f"--batch-ms {arguments.batch_ms:g}: must be from 0 to 1000")
    for option in ("max_batch", "max_body", "max_history", "max_k", "concurrency"):
        if getattr(arguments, option) < 1:
            raise UserError(f"--{option.replace('_', '-')} {getattr(arguments, option)}: must be at least 1")
