"""Packages that only some commands need, and the extra of `pip install 'tslrec[EXTRA]'` that installs each."""

from __future__ import annotations

import importlib.util

from tslrec.system.errors import UserError

EXTRAS = {
    "train": (
        *("torch", "lightning", "torchmetrics", "deepspeed", "transformers", "peft", "gguf", "sklearn", "wandb"),
        *("hydra", "omegaconf", "scipy", "yaml", "huggingface_hub"),
    ),
    "serve": ("onnxruntime", "fastapi", "starlette", "pydantic", "uvicorn", "h11", "prometheus_client"),
    "onnx": ("onnx", "onnxscript"),
    "faiss": ("faiss",),
    "quantized": ("bitsandbytes",),
    "tensorboard": ("tensorboard",),
}
"""By extra: the packages, under the names by which they are imported. What comes with one of them stands beside it."""


def not_installed(package: str, extra: str) -> str:
    """The line that says which package is missing, and how to install it."""
    return f"{package} is not installed; install it with pip install 'tslrec[{extra}]'"


def line_of_missing(error: ModuleNotFoundError) -> str | None:
    """The line for an import that failed because an optional package is not installed.

    Returns:
        None for every other module: one of this project, one that no extra installs, or a missing part of a package
        that is installed. Its absence is a defect, and keeps its traceback.
    """
    package = (error.name or "").partition(".")[0]
    extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
    if extra is None or importlib.util.find_spec(package) is not None:
        return None
    return not_installed(package, extra)


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def require(package: str, extra: str) -> None:
    """Refuses a missing package before any work.

    Raises:
        UserError: naming the extra that installs it.
    """
    if not installed(package):
        raise UserError(not_installed(package, extra))
