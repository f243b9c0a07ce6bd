"""GRUs as ONNX's own operator.

torch's exporter unrolls `nn.GRU` over the positions of one length, unless nothing in the process has imported torch's
decompositions; so the translation is made here.

Shapes: B sequences, L positions, D size of an input, G size of the state, H = 3 G rows of the three gates.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tslrec.models.backbones.base import Backbone


class OnnxGRU(nn.Module):
    """Gives what `nn.GRU` gives for one direction, batch first and a first state of zeros; only to be exported.

    Args:
        gru: the trained module.
    """

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.size = gru.hidden_size
        self.layers = gru.num_layers
        for layer in range(gru.num_layers):
            for name in ("weight_ih", "weight_hh"):
                gates = in_onnx_order(getattr(gru, f"{name}_l{layer}").detach())
                self.register_buffer(f"{name}_{layer}", gates[None])
            if gru.bias:
                biases = [in_onnx_order(getattr(gru, f"bias_{side}_l{layer}").detach()) for side in ("ih", "hh")]
                self.register_buffer(f"bias_{layer}", torch.cat(biases)[None])
            else:
                self.register_buffer(f"bias_{layer}", torch.zeros(1, 6 * self.size))

    def forward(self, inputs_BLD: Tensor) -> tuple[Tensor, None]:
        """The states of the last layer, `[B, L, G]`; the last state of each layer is left out."""
        states_LBD = inputs_BLD.transpose(0, 1)
        length, size = states_LBD.shape[0], states_LBD.shape[1]
        for layer in range(self.layers):
            weights = [getattr(self, f"{name}_{layer}") for name in ("weight_ih", "weight_hh", "bias")]
            (states_L1BG,) = torch.onnx.ops.symbolic_multi_out(
                "GRU",
                [states_LBD, *weights],
                attrs={"hidden_size": self.size, "linear_before_reset": 1},
                dtypes=[inputs_BLD.dtype],
                shapes=[[length, 1, size, self.size]],
            )
            states_LBD = states_L1BG.squeeze(1)
        return states_LBD.transpose(0, 1), None


def in_onnx_order(gates_H: Tensor) -> Tensor:
    """Torch stacks the gates as reset, update, new; ONNX as update, reset, new."""
    reset, update, new = gates_H.chunk(3)
    return torch.cat([update, reset, new])


def with_onnx_grus(backbone: Backbone) -> Backbone:
    """A copy of a backbone in which ONNX's operator takes the place of each GRU that it can express."""
    copied = copy.deepcopy(backbone)
    for name, module in list(copied.named_modules()):
        if isinstance(module, nn.GRU) and module.batch_first and not module.bidirectional:
            parent, _, child = name.rpartition(".")
            setattr(copied.get_submodule(parent), child, OnnxGRU(module))
    return copied
