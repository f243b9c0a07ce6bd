"""The knowledge of an item is read at the layer and the token that were asked for."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny_model import make_model
from torch import Tensor

from tslrec.errors import UserError
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.prompted import H_U
from tslrec.llm.reading import Reading

HISTORIES = [np.array(history) for history in ([3], [1, 4], list(range(1, 18)))]


def layer_states(model: PreferenceLLM, history: np.ndarray) -> tuple[list[Tensor], int]:
    """Of one whole sequence, `[S, H]` after each layer, by hooks; and where its last item stands."""
    found: list[Tensor] = []

    def keep(module: torch.nn.Module, given: Any, output: Any) -> None:
        found.append(output if torch.is_tensor(output) else output[0])

    parts = [*cast("list[torch.nn.Module]", model.llm.layers), cast(torch.nn.Module, model.llm.norm)]
    hooks = [module.register_forward_hook(keep) for module in parts]
    items_LH = model.item_projection(model.items_ID[torch.from_numpy(history)])
    tokens = model.llm.get_input_embeddings()
    whole_1SH = torch.cat([tokens(model.instruction_P), items_LH, tokens(model.response_J)])[None]
    model.llm(inputs_embeds=whole_1SH, use_cache=False)
    for hook in hooks:
        hook.remove()
    # In the place of the last layer's stands what the final norm makes of it.
    return [state[0] for state in [*found[:-2], found[-1]]], len(model.instruction_P) + len(history) - 1


@pytest.mark.parametrize("position", ["response", "item"])
@pytest.mark.parametrize("layer", ["1", "last", "mean"])
@pytest.mark.parametrize("way", ["shared", "prefix first", "naive"])
@torch.no_grad()
def test_each_layer_and_position_is_that_of_a_whole_sequence(layer: str, position: str, way: str) -> None:
    model = make_model(shared_prefix=way != "naive")
    prefix = model.run_prefix() if way == "prefix first" else None
    output = model.know(model.packer(HISTORIES), prefix, Reading(layer, position))
    for example, history in enumerate(HISTORIES):
        states, item = layer_states(model, history)
        chosen = {"1": states[:1], "last": states[-1:], "mean": states}[layer]
        expected = torch.stack([state[item if position == "item" else -1] for state in chosen]).mean(dim=0)
        torch.testing.assert_close(output.knowledge_BH[example], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_categories_stay_those_of_the_last_hidden_state_at_the_response() -> None:
    model = make_model()
    examples = model.packer(HISTORIES)
    usual, other = model(examples), model.know(examples, None, Reading("1", "item"))
    torch.testing.assert_close(other.logits_BK, usual.logits_BK, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(other.knowledge_BH, usual.knowledge_BH)
    assert torch.equal(model.know(examples, None, H_U).knowledge_BH, model.read(examples))


@torch.no_grad()
def test_a_layer_that_the_model_lacks_is_refused() -> None:
    model = make_model()
    with pytest.raises(UserError, match=r"knowledge\.layer=3: the language model has 2"):
        model.know(model.packer(HISTORIES), None, Reading("3"))
