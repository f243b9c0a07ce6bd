"""The model card of an exported recommender, in the layout of the Hugging Face hub, from recorded facts alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.serving.catalogue import Catalogue


def model_card(facts: Mapping[str, Any], catalogue: Catalogue) -> str:
    """The text of the card.

    Args:
        facts: the content of `recommender.json`.
        catalogue: the items.
    """
    metrics = facts["metrics"]
    names = sorted({name.split("/")[2] for name in metrics if name.count("/") == 2})
    rows = [
        f"| seen items {title} | " + " | ".join(f"{metrics[f'test/{key}/{name}']:.4f}" for name in names) + " |"
        for key, title in PROTOCOLS.items()
        if all(f"test/{key}/{name}" in metrics for name in names)
    ]
    titled = len(catalogue.items) - catalogue.items["title"].null_count()
    return f"""---
library_name: tslrec
pipeline_tag: other
tags:
- recommender-system
- sequential-recommendation
- {facts["model"]}
---

# {facts["method"]} · {facts["model"]} · {facts["data"]}

A sequential recommender, trained with TSLRec. It turns the ids of the items that a user had, oldest first, into a
ranked list of items. It needs no language model and no item text.

| | |
|---|---|
| method | {facts["method"]} |
| backbone | {facts["model"]}, hidden size {facts["hidden_size"]}, reads the last {facts["max_len"]} items |
| language model of the training | {facts["llm"] or "none"} |
| data | {facts["data"]}: {facts["users"]:,} users, {facts["items"]:,} items, {facts["interactions"]:,} interactions |
| items with a title | {titled:,} |
| seed, preset | {facts["seed"]}, {facts["preset"]} |
| run | {facts["run"]} |
| trained, exported | {facts["trained"]}, {facts["exported"]} |

## Test metrics

Leave-one-out: the last item of each user is the test item, and all items are ranked.

| protocol | {" | ".join(names)} |
|---|{"---|" * len(names)}
{chr(10).join(rows)}

## Use

```python
import tslrec

recommender = tslrec.load("PATH OF THIS FOLDER")
recommender.recommend([["{catalogue.raw_ids[1]}", "{catalogue.raw_ids[min(2, catalogue.num_items)]}"]], k=10)
```

`tslrec recommend FOLDER --history "{catalogue.raw_ids[1]}"` does the same on the command line.

{"".join(further_files(facts))}## Limits

- It knows only the items of `items.parquet`. A user without one of them gets the most popular items.
- It was tested on users of the same data set. How well it does on other data was not measured.
- Licences of the training data apply to what is made of them.
"""


def further_files(facts: Mapping[str, Any]) -> list[str]:
    """Paragraphs about the optional files that the folder has."""
    paragraphs = []
    if "onnx" in facts:
        graph = facts["onnx"]
        checked = graph["checked"]
        paragraphs.append(
            f"`recommender.onnx` is the whole recommender as one graph (opset {graph['opset']}): inputs `items`, "
            "`seen`, `candidates` and `k`; outputs `ids`, `scores` and `user_vectors`. Of the lists of "
            f"{checked['users']:,} users, with and without their own items, {checked['same_top_10']:.2%} are those of "
            "PyTorch, and the rest differ by near ties only.\n\n"
        )
        small = graph.get("int8", {})
        if "loss" in small:
            changes = ", ".join(
                f"{name} {small['float32'][name]:.4f} becomes {small['int8'][name]:.4f}"
                for name in sorted(small["loss"])
            )
            paragraphs.append(
                f"`recommender-int8.onnx` is the same in int8: {changes}, over {small['users']:,} test users with seen "
                "items masked.\n\n"
            )
    if "index" in facts:
        paragraphs.append(
            "`index.safetensors` is an HNSW graph over the items, for large catalogues; of the 10 best items of "
            f"{facts['index']['users']:,} users it finds {facts['index']['recall@10']:.2%}.\n\n"
        )
    return paragraphs
