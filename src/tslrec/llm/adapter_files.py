"""The trained parts of an adapted language model on disk: PEFT's own adapter folder, and the layers beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tslrec.arrays import load_tensors
from tslrec.config import LLMConfig, LoraConfig
from tslrec.knowledge.origin import digest_files
from tslrec.llm.checkpointing import checkpoint_layers
from tslrec.llm.loading import load, load_tokenizer
from tslrec.llm.next_item_model import NextItemLLM
from tslrec.llm.packing import Packer
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.prompt import encode_e4srec_prompt, encode_prompt
from tslrec.llm.prompted import add_lora, packer_of
from tslrec.llm.source import ResolvedSource
from tslrec.streaming import FileTable
from tslrec.zero import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
HEADS = "heads.safetensors"


def new_model(llm: LLMConfig, source: ResolvedSource, item_embeddings_ID: Tensor, num_clusters: int) -> PreferenceLLM:
    """A preference model before training: equal to its base model, since LoRA starts at zero."""
    base, tokenizer = load_to_train(llm, source)
    with whole(base.get_input_embeddings().parameters()):
        return PreferenceLLM(
            add_lora(base, llm.lora),
            encode_prompt(tokenizer, num_clusters),
            item_embeddings_ID,
            num_clusters,
            shared_prefix=llm.shared_prefix,
        )


def new_e4srec(llm: LLMConfig, lora: LoraConfig, source: ResolvedSource, item_embeddings_ID: Tensor) -> NextItemLLM:
    """E4SRec's model before training, with its own LoRA on the configured language model."""
    base, tokenizer = load_to_train(llm, source)
    prompt = encode_e4srec_prompt(tokenizer)
    with whole(base.get_input_embeddings().parameters()):
        return NextItemLLM(add_lora(base, lora), prompt, item_embeddings_ID, shared_prefix=llm.shared_prefix)


def load_to_train(llm: LLMConfig, source: ResolvedSource) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model as its layers are to be trained through, and its tokenizer."""
    base, tokenizer = load(source, dtype=llm.dtype, attention=llm.attention, weight_bits=llm.weight_bits)
    if llm.gradient_checkpointing:
        checkpoint_layers(base)
    return base, tokenizer


def preference_packer(llm: LLMConfig, source: ResolvedSource, num_clusters: int) -> Packer:
    """What packs examples as the preference model wants them, before that model is made."""
    return packer_of(encode_prompt(load_tokenizer(source), num_clusters), shared_prefix=llm.shared_prefix)


def e4srec_packer(llm: LLMConfig, source: ResolvedSource) -> Packer:
    """The same for E4SRec's model."""
    return packer_of(encode_e4srec_prompt(load_tokenizer(source)), shared_prefix=llm.shared_prefix)


def save_trained(model: PreferenceLLM | NextItemLLM, folder: Path, source: ResolvedSource) -> None:
    """Writes `adapter/` and `heads.safetensors` into a folder."""
    # Otherwise this would be the path of the weights on the machine that trained.
    model.adapted.peft_config["default"].base_model_name_or_path = str(source.identity.get("name", source.kind))
    model.adapted.save_pretrained(str(folder / ADAPTER), safe_serialization=True, save_embedding_layers=False)
    (folder / ADAPTER / "README.md").unlink(missing_ok=True)
    layers: dict[str, torch.nn.Module] = {"item_projection": model.item_projection}
    if isinstance(model, PreferenceLLM):
        layers["group_head"] = model.folded_group_head()
    else:
        layers["item_head"] = model.item_head
    heads = {
        f"{layer}.{name}": parameter.detach().float().cpu().contiguous()
        for layer, module in layers.items()
        for name, parameter in module.named_parameters()
    }
    save_file(heads, folder / HEADS)


def load_trained(folder: Path, llm: LLMConfig, source: ResolvedSource, item_embeddings_ID: Tensor) -> PreferenceLLM:
    """The preference model that `save_trained` wrote, frozen; LoRA's settings are those of the adapter's own files.

    Raises:
        ValueError: if the adapter does not fit the language model.
    """
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    heads = load_tensors(folder / HEADS)
    num_clusters = heads["group_head.bias"].shape[0]
    base, tokenizer = load(source, dtype=llm.dtype, attention=llm.attention, weight_bits=llm.weight_bits)
    settings = PeftConfig.from_pretrained(str(folder / ADAPTER))
    # PEFT would warn that the weights lie elsewhere than where they were trained; the manifest knows their hash.
    settings.base_model_name_or_path = None
    adapted = get_peft_model(base, settings)
    weights = load_tensors(folder / ADAPTER / ADAPTER_WEIGHTS)
    result: Any = set_peft_model_state_dict(adapted, weights)
    wanted = {name for name, _ in adapted.named_parameters() if "lora_" in name}
    absent = wanted & set(result.missing_keys)
    if absent or result.unexpected_keys:
        raise ValueError(
            f"the adapter does not fit: {len(absent)} weights absent, {len(result.unexpected_keys)} unknown"
        )
    model = PreferenceLLM(
        adapted,
        encode_prompt(tokenizer, num_clusters),
        item_embeddings_ID,
        num_clusters,
        shared_prefix=llm.shared_prefix,
    )
    for layer, module in (("item_projection", model.item_projection), ("group_head", model.group_head)):
        module.load_state_dict({name: heads[f"{layer}.{name}"] for name in ("weight", "bias")})
    return model.requires_grad_(False).eval()


def digest_trained(folder: Path) -> str:
    """Hex sha256 of what `save_trained` wrote."""
    return digest_files(folder, [f"{ADAPTER}/{ADAPTER_CONFIG}", f"{ADAPTER}/{ADAPTER_WEIGHTS}", HEADS])


def item_embeddings(folder: Path) -> FileTable:
    """The backbone's item embeddings `[I + 1, D]`, which stay on disk."""
    return FileTable(folder / "item_embeddings.safetensors", "item_embeddings")


def read_item_embeddings(folder: Path) -> Tensor:
    """The same as one tensor, float32: the mapped file, where it is of that type."""
    return item_embeddings(folder)[:].to(torch.float32)
