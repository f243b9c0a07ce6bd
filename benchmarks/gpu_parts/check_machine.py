"""The card's own rates, of which all other figures are shares, and which packages of the project can be imported."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Mapping

from gpu_parts.bench import Bench, matmul_precision

PACKAGES: Mapping[str, str] = {
    "hydra": "hydra-core",
    "omegaconf": "omegaconf",
    "polars": "polars",
    "lightning": "lightning",
    "torchmetrics": "torchmetrics",
    "transformers": "transformers",
    "peft": "peft",
    "deepspeed": "deepspeed",
    "bitsandbytes": "bitsandbytes",
    "liger_kernel": "liger-kernel",
    "triton": "triton",
}
"""Module and distribution of each package that some part of the benchmark wants."""

LEAST_TRANSFORMERS = (5, 24)
"""The release from which a cache of keys and values is called `cache`; the code needs it."""

IMPORT_SECONDS = 30
"""An import that takes this much longer than the rates is broken. The first one of a fresh machine reads the disk."""

GIB = 2**30


def check_machine(bench: Bench) -> None:
    """Imports every package in a process of its own, and measures products and copies."""
    names = bench.sized(tuple(PACKAGES), ("hydra", "polars"))
    imports = {name: start_import(name) for name in names}
    tell_versions(bench)
    # While they are imported; a first import also compiles the package's sources, which can take seconds.
    measure_products(bench)
    measure_copies(bench)
    reasons = {name: failure(process, name) for name, process in imports.items()}
    missing = {name: reason for name, reason in reasons.items() if reason is not None}
    for name, reason in missing.items():
        bench.say(f"missing: {PACKAGES[name]}: {reason}")
    bench.figure("packages_missing", len(missing), "count")
    if "transformers" in names and "transformers" not in missing:
        check_transformers(bench)


def start_import(name: str) -> subprocess.Popen[str]:
    """Starts to import a package; one that crashes or hangs costs only its own process."""
    command = [sys.executable, "-c", f"import {name}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def failure(process: subprocess.Popen[str], name: str) -> str | None:
    """Why a package cannot be imported; None if it can.

    Args:
        process: of `start_import`; it is waited for.
        name: of the module.
    """
    try:
        _, errors = process.communicate(timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"its import takes more than {IMPORT_SECONDS} s"
    if process.returncode == 0:
        return None
    lines = errors.strip().splitlines()
    if lines and lines[-1] == f"ModuleNotFoundError: No module named '{name}'":
        return "is not installed"
    return lines[-1] if lines else f"its import ended with code {process.returncode}"


def check_transformers(bench: Bench) -> None:
    """Notes a transformers that is too old for the language model's stages."""
    found = importlib.metadata.version("transformers")
    if tuple(int(part) for part in found.split(".")[:2]) < LEAST_TRANSFORMERS:
        wanted = ".".join(map(str, LEAST_TRANSFORMERS))
        bench.say(f"transformers {found} is older than {wanted}: the language model's stages fail with it")


def tell_versions(bench: Bench) -> None:
    """Notes the versions that decide what is computed on the card."""
    import torch

    cudnn = torch.backends.cudnn.version()
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if bench.on_card else None
    triton = importlib.metadata.version("triton") if bench.on_card else None
    bench.say(
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}, "
        f"NCCL {nccl}, triton {triton}"
    )


def measure_products(bench: Bench) -> None:
    """Rates of a large product in bfloat16, in float32 and in TF32."""
    bench.figure("bfloat16", bench.product_rate("bfloat16"), "TFLOP/s")
    for name, precision in (("float32", "highest"), ("tf32", "high")):
        with matmul_precision(precision):
            bench.figure(name, bench.product_rate("float32"), "TFLOP/s")


def measure_copies(bench: Bench) -> None:
    """Rates of copies on the card, and between pinned host memory and the card."""
    import torch

    def empty(size: int, device: str, *, pinned: bool = False) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, device=device, pin_memory=pinned)

    # Without a card there is nothing to pin memory for.
    size = bench.sized(GIB, 2**20)
    host = empty(size, "cpu", pinned=bench.on_card)
    there, copy = empty(size, bench.device_name), empty(size, bench.device_name)
    # A copy reads every byte and writes it.
    bench.figure("device_copy", 2 * size / bench.seconds(lambda: copy.copy_(there), repeats=10) / 1e9, "GB/s")
    to_card = bench.seconds(lambda: there.copy_(host, non_blocking=True), repeats=3, warm_up=1)
    bench.figure("host_to_card", size / to_card / 1e9, "GB/s")
    to_host = bench.seconds(lambda: host.copy_(there, non_blocking=True), repeats=3, warm_up=1)
    bench.figure("card_to_host", size / to_host / 1e9, "GB/s")
