"""The language model's own head for tokens, which `tslrec.llm.loading` leaves out.

Shapes: V tokens of the vocabulary, H hidden size.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import Tensor

from tslrec.llm.architecture import short
from tslrec.llm.loading import local_folder
from tslrec.llm.weights_source import ResolvedSource
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import refuse_unreadable, shapes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD_NAME = "lm_head.weight"
"""The head's name in the layouts of transformers."""


def load_token_head(source: ResolvedSource, base: PreTrainedModel, dtype: torch.dtype) -> Tensor | None:
    """Reads the head for tokens.

    Args:
        source: where the weights are.
        base: the language model of this source.
        dtype: type of the head.

    Returns:
        `[V, H]`; None where the token embeddings are the head, as in many small models, and in the random one of tests.

    Raises:
        UserError: if the model has a head of its own and the weights have none.
    """
    if source.kind == "random" or base.config.tie_word_embeddings:
        return None
    folder = local_folder(source)
    if not source.pretrained:
        generator = torch.Generator().manual_seed(0)
        shape = base.config.vocab_size, base.config.hidden_size
        return torch.randn(shape, generator=generator).mul_(base.config.initializer_range).to(dtype)
    path = file_of_head(folder)
    with refuse_unreadable(path), safe_open(path, framework="pt") as file:
        head_VH: Tensor = file.get_tensor(HEAD_NAME).to(dtype)
        return head_VH


def file_of_head(folder: Path) -> Path:
    """The file of a model folder that holds the head; none of its numbers is read.

    Raises:
        UserError: if there is none.
    """
    for path in sorted(folder.glob("*.safetensors")):
        if HEAD_NAME in shapes(path)[0]:
            return path
    raise UserError(
        f"{short(folder)}: has no {HEAD_NAME}, the head for tokens that this method scores letters by; give a folder "
        "of the whole model in the Hugging Face layout (a GGUF copy keeps none)"
    )
