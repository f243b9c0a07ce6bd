"""What the rest of the code must know of a stage, and so what a stage declares of itself; free of heavy imports."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tslrec.config import Config

Settings = Callable[[Config], dict[str, Any]]
"""Reads from a configuration what determines a stage's result."""

MEMBERS = "members"
"""Among what a stage reads: the recommenders of the run's members."""


def titles_of_items(config: Config) -> tuple[str, ...]:
    """`titles`, of a stage that shows items to the language model, where `sft.item_input` shows their titles."""
    return ("titles",) if config.sft.reads_titles else ()


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
        name: the stage's name in `method.stages`, and of the folder of its results.
        version: of the stage's code; raise it whenever the same settings give other results.
        module: the module with `run(context)`; imported only when the stage runs.
        reads: the stages whose results it reads, `data`, `titles` if it reads the items' titles
            (`tslrec.data.item_titles`), and `members` if it reads recommenders of other runs (`Config.members`). A
            fusion also reads the stages that make its inputs.
        reads_if: what it reads beside these under some settings only.
        settings: the part of the configuration that determines its result, beside the results it reads and the seed.
        sections: the sections of the configuration that `settings` reads; tables compare runs by these.
        label: the readable part of the names of its result folders, after the data set's name.
        makes: the arrays that a fusion may ask for by the name of a parameter: `knowledge_IH` `[I + 1, H]`,
            `clusters_I` `[I + 1]` (I items, row 0 for padding; H size of an item's knowledge).
        runs_llm: whether it runs the language model, so that the model's weights determine its result, too.
        together: whether every process of a job runs it and rank 0 writes; otherwise rank 0 runs it alone while the
            others wait.
        settings_of: which configuration it runs with if `source_model` names another backbone for stage 1: the
            source's, the target's (the run's own), or both: the run's, with the source's model and training.
        continues: how it continues a finished run (`continue_from`): `reuse` takes the earlier result as it is; `carry`
            computes a new one from the earlier result, items that are gone vanish; `extend` does so and needs all
            earlier items. None: it cannot.
        restored_by: of a stage whose result is a recommender, the function `restore(sources, folder)` that rebuilds it
            (`tslrec.stages.restored.Restored`), as `module:function`; imported only when somebody asks for it.
        generates_lists: whether its ranks are places in lists that it generates (`tslrec.evaluation.generated_lists`)
            instead of a full ranking. Metrics then reach no further than a list, and every view of its numbers says so.
        reranks: whether its recommender puts the first items of each list into an order of its own, so that it has no
            scores of all items.
        selected_by_loss: whether the validation loss selects its weights, not ranks as `training.selection` says.
        seeded: whether it draws anything; the result of one that does not is that of every seed.
    """

    name: str
    version: int
    module: str
    reads: tuple[str, ...]
    settings: Settings
    sections: tuple[str, ...] = ()
    label: Callable[[Config], str] = lambda config: str(config.model["name"])
    makes: tuple[str, ...] = ()
    runs_llm: bool = False
    together: bool = True
    settings_of: Literal["source", "target", "both"] = "both"
    continues: Literal["reuse", "carry", "extend"] | None = None
    restored_by: str | None = None
    generates_lists: bool = False
    reranks: bool = False
    selected_by_loss: bool = False
    seeded: bool = True
    reads_if: Callable[[Config], tuple[str, ...]] = lambda config: ()

    def reads_with(self, config: Config) -> tuple[str, ...]:
        """What it reads under the settings of a run (`reads` and `reads_if`)."""
        return (*self.reads, *self.reads_if(config))

    def run(self, context: Any) -> dict[str, Any]:
        """Computes the stage's result.

        Args:
            context: a `tslrec.stages.context.StageContext`.

        Returns:
            The stage's metrics.
        """
        metrics: dict[str, Any] = importlib.import_module(self.module).run(context)
        return metrics
