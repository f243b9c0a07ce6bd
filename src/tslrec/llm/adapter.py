"""The trained parts of an adapted language model on disk: PEFT's adapter folder, and the layers trained beside LoRA.

The folder `adapter/` is in PEFT's own format. The file `heads.safetensors` holds the parameters of each layer of
`SharedPrefixLLM.trained_layers` in float32, named `<layer>.<parameter>`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from tslrec.llm.shared_prefix import SharedPrefixLLM
from tslrec.llm.trained_layers import use_low_rank_factors
from tslrec.llm.weights_source import ResolvedSource
from tslrec.system.hashing import digest_files
from tslrec.system.safetensors_io import load_tensors

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

ADAPTER = "adapter"
"""The folder of the LoRA weights."""

ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""The file of the LoRA weights in it."""

ADAPTER_CONFIG = "adapter_config.json"
"""The file of the LoRA settings in it."""

HEADS = "heads.safetensors"
"""The file of the layers that are trained beside LoRA."""


def load_adapted(base: PreTrainedModel, folder: Path) -> tuple[PeftModel, dict[str, Tensor]]:
    """Loads the adapter that `save_trained` wrote into a base model; reads the layers that were trained beside it.

    Args:
        base: the frozen language model.
        folder: the stage's folder. The adapter's own configuration in it decides LoRA's settings.

    Returns:
        The adapted model, and the parameters in `heads.safetensors` by name.

    Raises:
        ValueError: if the adapter does not fit the language model.
    """
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    heads = load_tensors(folder / HEADS)
    settings = PeftConfig.from_pretrained(str(folder / ADAPTER))
    # Otherwise PEFT warns that the base weights are in another place than in training; the manifest has their hash.
    settings.base_model_name_or_path = None
    adapted: Any = use_low_rank_factors(get_peft_model(base, settings))
    result: Any = set_peft_model_state_dict(adapted, load_tensors(folder / ADAPTER / ADAPTER_WEIGHTS))
    wanted = {name for name, _ in adapted.named_parameters() if "lora_" in name}
    absent = wanted & set(result.missing_keys)
    if absent or result.unexpected_keys:
        raise ValueError(
            f"the adapter does not fit: {len(absent)} weights absent, {len(result.unexpected_keys)} unknown"
        )
    return adapted, heads


def save_trained(model: SharedPrefixLLM[Any], folder: Path, source: ResolvedSource) -> None:
    """Writes `adapter/` and `heads.safetensors` into a folder.

    Args:
        model: the trained model, its parameters gathered.
        folder: an existing folder.
        source: the base weights; their name goes into the adapter's configuration.
    """
    # PEFT would write the path of the weights on this machine.
    model.adapted.peft_config["default"].base_model_name_or_path = str(source.identity.get("name", source.kind))
    model.adapted.save_pretrained(str(folder / ADAPTER), safe_serialization=True, save_embedding_layers=False)
    (folder / ADAPTER / "README.md").unlink(missing_ok=True)
    heads = {
        f"{layer}.{name}": parameter.detach().float().cpu().contiguous()
        for layer, module in model.trained_layers().items()
        for name, parameter in module.named_parameters()
    }
    save_file(heads, folder / HEADS)


def digest_trained(folder: Path) -> str:
    """Hex sha256 of the files that `save_trained` wrote into a folder."""
    return digest_files(folder, [f"{ADAPTER}/{ADAPTER_CONFIG}", f"{ADAPTER}/{ADAPTER_WEIGHTS}", HEADS])
