"""Stage 4 of the pipeline: what the trained language model knows of each item (paper, Section 4.2).

Shapes: I items (row 0 is padding), B items of a batch, H hidden size of the language model, K clusters.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor

from tslrec.arrays import ID_MAP, load_arrays
from tslrec.errors import UserError
from tslrec.llm.adapter_files import load_trained, read_item_embeddings
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.source import resolve
from tslrec.stages.context import StageContext

VERSION = 1
TOGETHER = False

TOP = 3
"""How many of the likeliest categories the paper's case C2 looks at (Section 5.4)."""


@torch.inference_mode()
def augment(model: PreferenceLLM, num_items: int, *, batch_size: int) -> tuple[Tensor, Tensor]:
    """Each item as a virtual user who bought nothing else: Eq. 1 and 2 with one item.

    The instruction runs once for the whole catalogue.

    Returns:
        The knowledge-enhanced embeddings, float32 `[I + 1, H]`, and the inferred category distributions, float32
        `[I + 1, K]`; row 0 of both is zero.
    """
    device = model.items_ID.device
    knowledge_IH = torch.zeros(num_items + 1, model.knowledge_size)
    categories_IK = torch.zeros(num_items + 1, model.group_head.out_features)
    prefix = model.run_prefix() if model.shared_prefix else None
    columns = (TextColumn("augment · items"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=num_items)
        for start in range(1, num_items + 1, batch_size):
            items_B = np.arange(start, min(start + batch_size, num_items + 1))
            output = model(model.packer(list(items_B[:, None])).to(device), prefix)
            knowledge_IH[items_B] = output.knowledge_BH.float().cpu()
            categories_IK[items_B] = output.logits_BK.float().softmax(dim=1).cpu()
            progress.advance(task, len(items_B))
    return knowledge_IH, categories_IK


def compare_categories(categories_IK: Tensor, clusters_I: NDArray[np.int64]) -> dict[str, float]:
    """Shares of items by how the inferred categories agree with the cluster (Section 5.4).

    Returns:
        `C1`: the likeliest category is the cluster; `C2`: it is not, but the cluster is among the top three;
        `C3`: the others.
    """
    top_IT = categories_IK[1:].topk(min(TOP, categories_IK.shape[1]), dim=1).indices.numpy()
    same_IT = top_IT == clusters_I[1:, None]
    first, among = float(same_IT[:, 0].mean()), float(same_IT.any(axis=1).mean())
    return {"C1": first, "C2": among - first, "C3": 1 - among}


def run(context: StageContext) -> dict[str, Any]:
    """Writes `knowledge.safetensors`: `knowledge` `[I + 1, H]` and `categories` `[I + 1, K]`, row 0 zeros.

    Returns:
        The cases C1, C2 and C3, and the adjusted Rand index against the true categories where they are known.

    Raises:
        UserError: if a value is not finite.
    """
    config = context.config
    clusters_I = load_arrays(context.inputs["preferences"] / "preferences.safetensors")["clusters"]
    source = resolve(config.llm, Path(config.cache))
    item_embeddings_ID = read_item_embeddings(context.inputs["backbone"])
    model = load_trained(context.inputs["sft"], config.llm, source, item_embeddings_ID)
    model.to(device_of(config.trainer.accelerator))
    with autocast(config.trainer.llm_precision, model.items_ID.device):
        knowledge_IH, categories_IK = augment(
            model, context.interactions.num_items, batch_size=config.sft.augment_batch_size
        )
    if not (torch.isfinite(knowledge_IH).all() and torch.isfinite(categories_IK).all()):
        raise UserError("augment: the language model gave values that are not finite; use another llm.dtype")
    save_file(
        {"knowledge": knowledge_IH, "categories": categories_IK},
        context.folder / "knowledge.safetensors",
        metadata={ID_MAP: context.interactions.ids.digest},
    )
    metrics = compare_categories(categories_IK, clusters_I)
    truth = context.interactions.true_categories
    if truth is not None:
        from sklearn.metrics import adjusted_rand_score

        inferred = categories_IK[1:].argmax(dim=1).numpy()
        metrics["ari_categories"] = float(adjusted_rand_score(truth[1:], inferred))
    return metrics


def device_of(accelerator: str) -> torch.device:
    """Where Lightning's accelerator of that name computes."""
    gpu = accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Lightning's mixed precisions for a function outside its trainer; in the others the weights' dtype decides."""
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision.endswith("mixed"))
