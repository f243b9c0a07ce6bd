"""The knowledge of an item is read at the requested layer and token.

Shapes: S tokens of a whole sequence, L items of a history, H hidden size of the language model.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from support.tiny_model import make_model
from tslrec.llm.readout import PAPER_READOUT, Readout
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.system.errors import UserError

HISTORIES = [np.array(history) for history in ([3], [1, 4], list(range(1, 18)))]


def layer_states(model: PreferenceLLM, history: np.ndarray) -> tuple[list[Tensor], int]:
    """Hidden states `[S, H]` of one whole sequence after each layer, from hooks, and the position of its last item."""
    found: list[Tensor] = []

    def keep(module: torch.nn.Module, given: Any, output: Any) -> None:
        found.append(output if torch.is_tensor(output) else output[0])

    parts = [*cast("list[torch.nn.Module]", model.llm.layers), cast(torch.nn.Module, model.llm.norm)]
    hooks = [module.register_forward_hook(keep) for module in parts]
    assert model.item_projection is not None
    items_LH = model.item_projection(model.items_ID[torch.from_numpy(history)])
    tokens = model.llm.get_input_embeddings()
    whole_1SH = torch.cat([tokens(model.instruction_P), items_LH, tokens(model.response_J)])[None]
    model.llm(inputs_embeds=whole_1SH, use_cache=False)
    for hook in hooks:
        hook.remove()
    # The last layer's state is replaced by the output of the final norm.
    return [state[0] for state in [*found[:-2], found[-1]]], len(model.instruction_P) + len(history) - 1


@pytest.mark.parametrize("position", ["response", "item"])
@pytest.mark.parametrize("layer", ["1", "last", "mean"])
@pytest.mark.parametrize("way", ["shared", "prefix first", "naive"])
@torch.no_grad()
def test_each_layer_and_position_equals_that_of_a_whole_sequence(layer: str, position: str, way: str) -> None:
    model = make_model(shared_prefix=way != "naive")
    prefix = model.run_prefix() if way == "prefix first" else None
    output = model.forward_with_readout(model.packer(HISTORIES), prefix, Readout(layer, position))
    for example, history in enumerate(HISTORIES):
        states, item = layer_states(model, history)
        chosen = {"1": states[:1], "last": states[-1:], "mean": states}[layer]
        expected = torch.stack([state[item if position == "item" else -1] for state in chosen]).mean(dim=0)
        torch.testing.assert_close(output.knowledge_BH[example], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_logits_come_from_h_u_whatever_the_readout() -> None:
    model = make_model()
    examples = model.packer(HISTORIES)
    usual, other = model(examples), model.forward_with_readout(examples, None, Readout("1", "item"))
    torch.testing.assert_close(other.logits_BK, usual.logits_BK, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(other.knowledge_BH, usual.knowledge_BH)
    assert torch.equal(model.forward_with_readout(examples, None, PAPER_READOUT).knowledge_BH, model.read(examples))


@torch.no_grad()
def test_a_layer_number_above_the_models_is_refused() -> None:
    model = make_model()
    with pytest.raises(UserError, match=r"knowledge\.layer=3: the language model has 2"):
        model.forward_with_readout(model.packer(HISTORIES), None, Readout("3"))
