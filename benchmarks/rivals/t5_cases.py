"""Writes the batches of P5 and POD that both sides train on, by the stages' own data modules."""

from __future__ import annotations

from itertools import islice

from rivals.t5_batches import T5Batch, T5Case
from tslrec.data.interactions import Interactions
from tslrec.llm.encoder_decoder.source import SIZES, shape_of
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.settings.rivals import ItemIndexConfig, P5Config, PODConfig
from tslrec.stages.item_index.stage import make_item_index
from tslrec.stages.p5.data import TextDataModule
from tslrec.stages.p5.pieces import WordPieces
from tslrec.stages.p5.texts import TextWriter, words_of_texts
from tslrec.stages.p5.vocabulary import OwnVocabulary
from tslrec.stages.pod.data import PODDataModule, numbering_of
from tslrec.stages.pod.pieces import PromptWriter
from tslrec.stages.pod.templates import words

SEED = 0


def p5_case(interactions: Interactions, t5: EncoderDecoderConfig, index: str, batch: int, steps: int) -> T5Case:
    """P5's steps, sequential and straightforward ones in turn.

    Args:
        interactions: the data set.
        t5: the sizes.
        index: kind of the item index.
        batch: texts per step.
        steps: number of batches.
    """
    codes, _ = make_item_index(interactions, ItemIndexConfig(kind=index), SEED)
    vocabulary = OwnVocabulary(words_of_texts(interactions.name), codes.new_tokens)
    writer = TextWriter(WordPieces(vocabulary), interactions.name, interactions.num_users, codes.texts)
    data = TextDataModule(interactions, writer, P5Config(batch_size=batch), SEED)
    batches = [T5Batch(*each.inputs.rows(), each.outputs.rows()[0], 0) for each in islice(data.batches, steps)]
    return T5Case(batches, len(vocabulary), sizes_of(t5))


def pod_case(interactions: Interactions, t5: EncoderDecoderConfig, batch: int, steps: int) -> T5Case:
    """POD's steps, sequential and top-N ones in turn; the arguments are those of `p5_case`."""
    numbers = PODConfig(batch_size=batch)
    vocabulary = OwnVocabulary([*words(), "user_", "item_"], bare_numbers=True)
    writer = PromptWriter(vocabulary, numbering_of(interactions, numbers, SEED))
    data = PODDataModule(interactions, writer, numbers, SEED)
    batches = [T5Batch(*each.prompts.rows(), each.targets, each.task) for each in islice(data.batches, steps)]
    return T5Case(batches, len(vocabulary), sizes_of(t5))


def sizes_of(t5: EncoderDecoderConfig) -> dict[str, int]:
    """The sizes that both sides read, by the names of T5's config.json."""
    shape = shape_of(t5)
    return {name: getattr(shape, name) for name in SIZES if hasattr(t5, name)}
