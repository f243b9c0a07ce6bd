"""Rebuilds the recommender of P5's decoder-only form, whose language model writes a list of items for every user.

Shapes: B users, L positions, S (user, item) pairs of histories, K items of a list.
"""

from __future__ import annotations

from pathlib import Path

import torch

from tslrec.llm.adapter import load_adapted
from tslrec.llm.encoder_decoder.trie import build_trie
from tslrec.llm.extended_text import ExtendedTextLLM
from tslrec.llm.loading import load
from tslrec.llm.prompt_beams import generate_after, read_prompts
from tslrec.llm.token_head import load_token_head
from tslrec.llm.weights_source import resolve
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.item_index.codes import read_item_index
from tslrec.stages.p5.listing import list_generator
from tslrec.stages.p5.pieces import Encoded
from tslrec.stages.p5_llm.model import vocabulary_of, writer_of
from tslrec.stages.restored import ListGenerator


def restore(sources: Sources, folder: Path) -> ListGenerator:
    """The language model with its adapter and the vectors of the index's tokens, asked by the template of the test.

    Args:
        sources: the run's configuration, data set and earlier results.
        folder: the stage's artifact.

    Raises:
        UserError: if the language model's weights cannot be had.
    """
    config, numbers = sources.config, sources.config.p5
    llm, source = config.llm, resolve(config.llm, Path(config.cache))
    index = read_item_index(sources.inputs["item_index"])
    vocabulary = vocabulary_of(source, index)
    writer = writer_of(vocabulary, config.data.name, sources.interactions.num_users + 1, index)
    trie = build_trie(writer.output_codes())
    base, _ = load(source, dtype=llm.dtype, weight_bits=llm.weight_bits)
    adapted, heads = load_adapted(base, folder)
    head_VH = load_token_head(source, base, getattr(torch, llm.dtype))
    model = ExtendedTextLLM(adapted, vocabulary.num_new, head_VH, packs=llm.shared_prefix)
    for name, layer in model.trained_layers().items():
        layer.load_state_dict({"weight": heads[f"{name}.weight"]})
    model.requires_grad_(False).eval()

    def listed(texts: Encoded, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens_BS, lengths_B = torch.from_numpy(texts.ids_BS), torch.from_numpy(texts.lengths_B)
        return generate_after(model, read_prompts(model, tokens_BS, lengths_B), trie, seen, num_beams=numbers.beams)

    return list_generator(sources, writer, trie, listed)
