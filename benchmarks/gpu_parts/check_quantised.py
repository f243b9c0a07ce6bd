"""SFT over a language model in 8 and in 4 bits a weight, beside the same one in bfloat16."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.check_runs import Chain, result_of, run_all, scratch

SIZES = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}
"""Of the random Llama: 25 million weights, in layers wide enough to be quantised by blocks."""

TOLERANCE = {8: 0.05, 4: 0.10}
"""How much less of the preferences' variance a model may explain than in bfloat16, by bits of a weight."""

SFT_ONLY = (
    "method=tslrec",
    "method.stages=[backbone,preferences,sft]",
    "data=synthetic",
    "preset=quickstart",
    "llm=tiny",
    "llm.random=null",
    "llm.dtype=bfloat16",
    "trainer=gpu",
    "training.max_epochs=5",
    "sft.max_epochs=2",
)
"""A short run up to the fine-tuning: a hundred steps of 16 users over the generated data set."""


def check_quantised(bench: Bench) -> None:
    """Trains three adapters on the same data, side by side.

    Raises:
        NotMeasuredError: without a card or bitsandbytes.
        RuntimeError: if a quantised model explains less than the tolerance allows.
    """
    if not bench.on_card:
        raise NotMeasuredError("quantised weights need a GPU")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise NotMeasuredError("bitsandbytes is not installed: pip install 'tslrec[quantized]'")
    folder = scratch(bench, "quantised")
    write_llama(folder / "llama")
    common = (*SFT_ONLY, f"llm.path={folder / 'llama'}")
    bits = {16: "null", 8: "8", 4: "4"}
    run_all(bench, [Chain(f"bits_{n}", (*common, f"llm.weight_bits={bits[n]}")) for n in bits], folder)
    explained = {n: explained_share(folder / f"bits_{n}") for n in bits}
    for n, share in explained.items():
        bench.figure(f"explained_share_{n}_bits", share, "1", bfloat16=round(explained[16], 4))
    short = [n for n, allowed in TOLERANCE.items() if explained[n] < explained[16] - allowed]
    if short:
        raise RuntimeError(f"{' and '.join(map(str, short))} bits explain less than the tolerance {TOLERANCE} allows")


def write_llama(folder: Path) -> None:
    """Saves a random Llama and a tokenizer of bytes, as Hugging Face lays them out."""
    import torch

    from tslrec.llm.tiny import byte_tokenizer, random_llama

    random_llama(SIZES).to(torch.bfloat16).save_pretrained(folder)  # type: ignore[arg-type]
    byte_tokenizer().save_pretrained(folder)


def explained_share(folder: Path) -> float:
    """Share of the constant predictor's error that the SFT of a run explains, over its last third."""
    return float(result_of(folder)["stages"]["sft"]["metrics"]["explained_share"])
