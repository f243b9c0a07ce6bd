"""How fast `tslrec serve` answers, and that it loses no request: `python benchmarks/serve.py FOLDER`.

Starts the server as a process, measures the time to its first answer, and then sends requests from another process
(`serve_load.py`) at random moments of a given rate, whether or not earlier ones are answered (an open loop). A latency
runs from the moment at which a request was meant to be sent, so a stalled server is charged for the requests that
queue up meanwhile. Histories are drawn from the folder's items by popularity. What follows `--` goes to `tslrec serve`.

  python benchmarks/serve.py FOLDER --rate 200 --seconds 60
  python benchmarks/serve.py FOLDER --rate 200 --seconds 20 --reload
  python benchmarks/serve.py FOLDER --rate 200 --seconds 20 --sigterm -- --engine onnxruntime

Ends with one line per figure, `name value unit`; exit code 1 if a request was lost.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tslrec.serving.catalogue import Catalogue
from tslrec.serving.folder import is_export, read_catalogue
from tslrec.serving.loading import load

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "the-token-of-this-benchmark"
REQUESTS = 2000
"""Different requests; they are sent in turn."""
MEAN_LENGTH = 9
"""Mean length of a history, as in Amazon Beauty."""
LONGEST = 50


def main(words: Sequence[str]) -> None:
    """Measures and prints.

    Raises:
        SystemExit: with code 1 if a request was lost.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an export or a finished run")
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second; default 200")
    parser.add_argument("--seconds", type=float, default=60.0, help="default 60")
    parser.add_argument("--warm-up", type=float, default=3.0, metavar="SECONDS", help="not counted; default 3")
    parser.add_argument("--seed", type=int, default=0, help="of histories and moments; default 0")
    moment = parser.add_mutually_exclusive_group()
    moment.add_argument("--reload", action="store_true", help="reload the folder in the middle")
    moment.add_argument("--sigterm", action="store_true", help="send SIGTERM in the middle")
    own, server = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    arguments = parser.parse_args(own)
    with tempfile.TemporaryDirectory() as scratch:
        bodies = Path(scratch) / "bodies.jsonl"
        write_bodies(bodies, catalogue(arguments.folder), arguments.seed)
        result = measure(arguments, server, bodies)
    packages = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "uvicorn", "numpy", "polars"))
    print(f"# Python {platform.python_version()}, {packages}; {os.cpu_count()} cores, server with one worker")
    print(f"# {' '.join(['benchmarks/serve.py', *words])}")
    for name, value in result.items():
        print(name, value)
    if result["serve_lost"] != "0 requests":
        sys.exit(1)


def catalogue(folder: Path) -> Catalogue:
    """The items that a folder's recommender knows."""
    return read_catalogue(folder) if is_export(folder) else load(folder).catalogue


def write_bodies(path: Path, items: Catalogue, seed: int) -> None:
    """Writes bodies of `/recommend`, one per line: a history of items by popularity, its length geometric."""
    random = np.random.default_rng(seed)
    counts = items.items["count"].to_numpy()[1:].astype(float) + 1
    raw_ids = np.array(items.raw_ids.to_list()[1:], dtype=object)
    lengths = np.minimum(random.geometric(1 / MEAN_LENGTH, REQUESTS), LONGEST)
    drawn = raw_ids[random.choice(len(raw_ids), size=lengths.sum(), p=counts / counts.sum())]
    histories = np.split(drawn, np.cumsum(lengths)[:-1])
    lines = [json.dumps({"histories": [list(history)], "k": min(10, items.num_items)}) for history in histories]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(arguments: argparse.Namespace, server_words: Sequence[str], bodies: Path) -> dict[str, str]:
    """Starts the server and the load, does in the middle what is asked, and returns the figures with their units."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TSLREC_RELOAD_TOKEN": TOKEN}
    environment.setdefault("OMP_NUM_THREADS", "1")
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "tslrec.cli.main", "serve", str(arguments.folder), "--port", "0", *server_words],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = port_of(server)
        first = bodies.read_text(encoding="utf-8").splitlines()[0]
        post(port, "/recommend", first, {})
        start_seconds = time.perf_counter() - began
        words = [str(port), str(bodies), str(arguments.rate), str(arguments.seconds), str(arguments.warm_up)]
        load_process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("serve_load.py")), *words, str(arguments.seed)],
            stdout=subprocess.PIPE,
            text=True,
        )
        extra = {}
        if arguments.reload or arguments.sigterm:
            time.sleep(arguments.warm_up + arguments.seconds / 2)
        if arguments.reload:
            at = time.perf_counter()
            post(port, "/reload", "{}", {"authorization": f"Bearer {TOKEN}"})
            extra["serve_reload"] = f"{time.perf_counter() - at:.2f} s"
        if arguments.sigterm:
            at = time.perf_counter()
            server.send_signal(signal.SIGTERM)
            extra["serve_exit_code"] = f"{server.wait(60)} code"
            extra["serve_drain"] = f"{time.perf_counter() - at:.2f} s"
        printed, _ = load_process.communicate(timeout=arguments.seconds + 120)
        found: Mapping[str, Any] = json.loads(printed)
    finally:
        server.terminate()
        server.wait(60)
    return {
        "serve_start_to_first_answer": f"{start_seconds:.2f} s",
        "serve_rate": f"{found['rate']:.1f} requests/s",
        "serve_p50": f"{found['p50']:.2f} ms",
        "serve_p99": f"{found['p99']:.2f} ms",
        "serve_max": f"{found['max']:.2f} ms",
        "serve_answered": f"{found['answered']} requests",
        "serve_lost": f"{found['lost']} requests",
        "serve_wrong_status": f"{found['wrong_status']} requests",
        "serve_not_connected": f"{found['refused']} requests",
        "serve_sender_late_p99": f"{found['late_p99']:.2f} ms",
        **extra,
    }


def port_of(server: subprocess.Popen[str]) -> int:
    """The port that a starting server prints.

    Raises:
        RuntimeError: if it ends before.
    """
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("serving at "):
            return int(line.rsplit(":", 1)[1])
    raise RuntimeError(f"the server ended with exit code {server.wait()}")


def post(port: int, path: str, body: str, headers: Mapping[str, str]) -> None:
    """Sends one request.

    Raises:
        RuntimeError: if it is not answered with 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", path, body, {"content-type": "application/json", **headers})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {content.decode()}")


if __name__ == "__main__":
    main(sys.argv[1:])
