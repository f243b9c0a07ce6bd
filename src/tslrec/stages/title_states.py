"""What the pretrained language model knows of each item by its title; the paper's TSLRec reads no titles.

The titles are read once, shard by shard, by all processes of a job, and a killed run keeps its finished shards.

Shapes: I items (row 0 is padding), R items of a shard, H hidden size of the language model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from tslrec.data.item_titles import read_item_titles
from tslrec.knowledge.shards import Shards
from tslrec.knowledge.single_file import write_knowledge
from tslrec.knowledge.store import KNOWLEDGE
from tslrec.knowledge.table_plan import TablePlan, finished_table
from tslrec.llm.loading import load, load_tokenizer
from tslrec.llm.title_states import TitleLLM, tokens_before
from tslrec.llm.title_tokens import ItemTokens, encode_titles, refuse_unknown_words
from tslrec.llm.weights_source import ResolvedSource, resolve
from tslrec.settings.language_models import LLMConfig
from tslrec.stages.context import StageContext
from tslrec.stages.shard_filling import autocast, begin_or_resume
from tslrec.system.consoles import plain_console
from tslrec.system.errors import UserError
from tslrec.system.hashing import digest_texts
from tslrec.system.processes import is_rank_zero, start_other_processes


def run(context: StageContext) -> dict[str, Any]:
    """Writes `knowledge.safetensors`: `knowledge` `[I + 1, H]`, float32, the mean state of each title.

    Returns:
        On rank 0: `tokens` of all titles; `missing_titles`, the items that have none and are read by the neutral text
        of `ItemTitles`; `shards`, and `shards_found`, how many of them an earlier run had left. On other ranks nothing.

    Raises:
        UserError: if the weights cannot be loaded, the model has no such layer, or a value is not finite.
    """
    config = context.config
    trainer = context.make_trainer(max_epochs=1, llm=True)
    start_other_processes(trainer)
    source = resolve(config.llm, Path(config.cache))
    titles = read_item_titles(context.inputs["titles"])
    tokens = encode_titles(load_tokenizer(source), titles.texts, config.item_text.title_tokens)
    folder, first, unfinished = context.checkpoints.folder, is_rank_zero(), context.folder.is_dir
    if first:
        plan = plan_of(context, source, titles.texts)
        shards, found = begin_or_resume("title_states", folder, plan, context.meter)
    elif (joined := Shards.join(folder, TablePlan, unfinished)) is not None:
        shards, found = joined, 0
    else:
        return {}
    if shards.missing:
        model = new_model(config.llm, source, tokens).to(trainer.strategy.root_device)
        with Progress(*COLUMNS, console=plain_console(quiet=not first), transient=True) as progress:
            task = progress.add_task("", total=context.interactions.num_items)
            shards.work(
                reader_of(model, tokens, context, lambda done: progress.update(task, completed=done), shards),
                unfinished=unfinished,
                facts=context.meter.facts,
                wait_for_others=first,
            )
    if not first:
        return {}
    write_knowledge(context.folder, finished_table(shards), context.interactions)
    return {
        "tokens": len(tokens.tokens_N),
        "missing_titles": titles.num_missing,
        "shards": shards.num_shards,
        "shards_found": found,
    }


COLUMNS = (TextColumn("title_states · items"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
"""Of the progress bar."""


def plan_of(context: StageContext, source: ResolvedSource, texts: list[str]) -> TablePlan:
    """What the rows are made from, and how they are cut into shards.

    Args:
        context: the stage's.
        source: the language model's weights.
        texts: the titles.
    """
    numbers = context.config.item_text
    origin = {
        "base_model": dict(source.identity),
        "titles": digest_texts(texts),
        "layer": numbers.layer,
        "title_tokens": numbers.title_tokens,
    }
    num_items = context.interactions.num_items
    return TablePlan(origin=origin, num_rows=num_items, shard_size=numbers.shard_size)


def new_model(llm: LLMConfig, source: ResolvedSource, titles: ItemTokens) -> TitleLLM:
    """The pretrained language model as a reader of titles.

    Raises:
        UserError: if the weights cannot be loaded, or the tokenizer is of another model.
    """
    base, tokenizer = load(source, dtype=llm.dtype, weight_bits=llm.weight_bits)
    refuse_unknown_words(titles.tokens_N, base)
    return TitleLLM(base, tokens_before(tokenizer), shared_prefix=llm.shared_prefix)


def reader_of(
    model: TitleLLM, tokens: ItemTokens, context: StageContext, show: Callable[[int], None], shards: Shards[TablePlan]
) -> Callable[[slice], dict[str, Tensor]]:
    """What computes the rows of some items.

    Args:
        model: the language model, on its device.
        tokens: of all titles.
        context: the stage's.
        show: called after each batch with the number of items that are done, those of finished shards included.
        shards: of the table.

    Returns:
        A function from a shard's rows, counted from the first item's, to `knowledge` `[R, H]`, float32. It raises
        UserError if a value is not finite.
    """
    numbers, precision = context.config.item_text, context.config.trainer.llm_precision
    device = model.instruction_P.device

    @torch.inference_mode()
    def read(span: slice) -> dict[str, Tensor]:
        items = range(span.start + 1, span.stop + 1)
        before, parts = shards.finished_rows, []
        with autocast(precision, device):
            prefix = model.run_prefix() if model.shared_prefix else None
            for begin in range(0, len(items), numbers.batch_size):
                titles = [tokens[item] for item in items[begin : begin + numbers.batch_size]]
                parts.append(model.mean_states(titles, numbers.layer, prefix).cpu())
                show(before + begin + len(titles))
        rows_RH = torch.cat(parts)
        if not torch.isfinite(rows_RH).all():
            raise UserError("title_states: the language model gave values that are not finite; use another llm.dtype")
        return {KNOWLEDGE: rows_RH}

    return read
