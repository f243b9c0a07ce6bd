"""The numbers by which a continued fusion standardises its knowledge: those that its first weights were trained with.

If they were measured anew over a catalogue that grew, the knowledge of every item would move a little, and the trained
projection and gate would no longer fit it.

Shapes: I items (row 0 is padding), H size of an item's knowledge.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from safetensors.torch import save_file

from tslrec.config import Config
from tslrec.models.fusions.knowledge_scaling import KnowledgeScaling
from tslrec.stages.context import Earlier
from tslrec.stages.fusion_inputs import Sources, load_input
from tslrec.stages.outputs import KNOWLEDGE_SCALING
from tslrec.system.safetensors_io import load_tensors
from tslrec.system.targets import find_target


def scaling_before(config: Config, earlier: Earlier) -> KnowledgeScaling | None:
    """The scaling of the earlier fusion; None where the configured fusion asks for none.

    Args:
        config: the run's; its fusion is the earlier run's.
        earlier: the earlier run.

    Raises:
        UserError: if the earlier knowledge does not fit the earlier data set.
    """
    if "knowledge_scaling" not in inspect.signature(find_target("fusion", config.fusion)).parameters:
        return None
    kept = read_scaling(earlier.folders["fusion"])
    if kept is not None:
        return kept
    return KnowledgeScaling.of(load_input(Sources(config, earlier.interactions, earlier.folders), "knowledge_IH"))


def read_scaling(folder: Path) -> KnowledgeScaling | None:
    """The scaling of a continued fusion; None of one that was trained anew, which has that of its own items.

    Args:
        folder: the fusion stage's artifact.
    """
    if not (folder / KNOWLEDGE_SCALING).is_file():
        return None
    tensors = load_tensors(folder / KNOWLEDGE_SCALING)
    return KnowledgeScaling(tensors["mean"], tensors["scale"])


def save_scaling(scaling: KnowledgeScaling, folder: Path) -> None:
    """Writes `knowledge_scaling.safetensors`."""
    save_file({"mean": scaling.mean_H, "scale": scaling.scale_H}, folder / KNOWLEDGE_SCALING)
