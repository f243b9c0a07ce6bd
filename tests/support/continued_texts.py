"""Small decoder-only models, one of ours and one of transformers' with the same weights, and users for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.llm.extended_text import ExtendedTextLLM
from tslrec.llm.prompted import add_lora
from tslrec.settings.language_models import LoraConfig

KNOWN, NEW, END = 19, 4, 1
"""Tokens that the models know, tokens that are new, and the token that ends a text."""


@dataclass(frozen=True)
class Market:
    """Two equal models, codes of items and users.

    Attributes:
        ours: the model under test, its LoRA at its initial values.
        theirs: transformers' model with a vocabulary of `KNOWN + NEW` tokens.
        codes: token ids by item number, behind a common beginning; number 0 is no item.
        prompts: token ids of each user's prompt.
        seen: each user's seen items.
    """

    ours: ExtendedTextLLM
    theirs: Any
    codes: list[tuple[int, ...]]
    prompts: list[NDArray[np.int64]]
    seen: list[NDArray[np.int64]]

    def padded(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """The prompts padded on the right, and their lengths."""
        rows = [torch.from_numpy(each) for each in self.prompts]
        lengths_U = torch.tensor([len(each) for each in rows])
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device), lengths_U.to(device)


def random_market(
    seed: int, *, kind: str = "llama", tied: bool = False, packs: bool = True, moved: bool = False, num_items: int = 25
) -> Market:
    """A market.

    Args:
        seed: draws everything.
        kind: `model_type` of transformers.
        tied: whether the token embeddings are the head.
        packs: see `ExtendedTextLLM`.
        moved: whether noise is added to LoRA's weights, so that `theirs` is another model.
        num_items: I.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": KNOWN + NEW,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.4,
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": END,
    }
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).eval()
        base = AutoModel.from_config(AutoConfig.for_model(kind, **{**sizes, "vocab_size": KNOWN}))
        weights = {
            name.partition(".")[2]: value for name, value in theirs.state_dict().items() if "lm_head" not in name
        }
        table, head = theirs.get_input_embeddings().weight, theirs.get_output_embeddings().weight
        name_of_table = next(name for name, value in base.named_parameters() if value.shape[0] == KNOWN)
        base.load_state_dict({**weights, name_of_table: table[:KNOWN]})
        targets = ["q_proj", "v_proj"] if kind != "gpt2" else ["c_attn"]
        adapted = add_lora(base, LoraConfig(2, 4, 0.0, targets), token_table=True)
        ours = ExtendedTextLLM(adapted, NEW, None if tied else head[:KNOWN].clone(), packs=packs)
        assert ours.new_tokens is not None
        ours.new_tokens.weight.copy_(table[KNOWN:])
        if ours.new_head is not None:
            ours.new_head.weight.copy_(head[KNOWN:])
        for name, parameter in ours.named_parameters():
            if moved and "lora_" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    rng = np.random.default_rng(seed)
    codes: set[tuple[int, ...]] = set()
    while len(codes) < num_items:
        codes.add((2, 3, *rng.integers(KNOWN - 2, KNOWN + NEW, rng.integers(1, 5)).tolist(), END))
    prompts = [rng.integers(2, KNOWN + NEW, rng.integers(3, 30)) for _ in range(5)]
    seen = [rng.integers(1, num_items + 1, rng.integers(0, 12)) for _ in range(5)]
    return Market(ours.eval(), theirs, [(), *sorted(codes, key=hash)], prompts, seen)
