"""Rebuilds P5's recommender, whose language model writes a list of items for every user."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tslrec.llm.encoder_decoder.beams import generate_items
from tslrec.llm.encoder_decoder.trie import build_trie
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.item_index.codes import read_item_index
from tslrec.stages.outputs import WEIGHTS
from tslrec.stages.p5.listing import list_generator
from tslrec.stages.p5.model import empty_model, vocabulary_of, writer_of
from tslrec.stages.p5.packing import PACKER
from tslrec.stages.p5.pieces import Encoded
from tslrec.stages.restored import ListGenerator, load_weights


def restore(sources: Sources, folder: Path) -> ListGenerator:
    """The language model with its trained weights, asked by the template of the test.

    Args:
        sources: the run's configuration, data set and earlier results.
        folder: the stage's artifact.

    Raises:
        UserError: if a file does not fit, or the T5 that the run began with is not where it was.
    """
    config, numbers, num_users = sources.config, sources.config.p5, sources.interactions.num_users
    index = read_item_index(sources.inputs["item_index"])
    vocabulary = vocabulary_of(config.t5, config.data.name, index)
    writer = writer_of(vocabulary, config.data.name, num_users + 1, index)
    trie = build_trie(writer.output_codes())
    model = empty_model(config.t5, vocabulary)
    load_weights(model, folder / WEIGHTS)
    model.requires_grad_(False).eval()

    def listed(texts: Encoded, seen: Tensor) -> tuple[Tensor, Tensor]:
        return generate_items(model, PACKER.sources(*texts.rows()), trie, seen, num_beams=numbers.beams)

    return list_generator(sources, writer, trie, listed)
