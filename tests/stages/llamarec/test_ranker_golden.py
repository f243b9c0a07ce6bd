"""The ranker equals the public implementation on its weights and token ids: logits, scores, ranks, loss, gradients."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from support.checkout import golden_folder
from tslrec.evaluation.chosen_metrics import parse_metric
from tslrec.evaluation.metrics import RankMetric
from tslrec.evaluation.ranking import target_ranks, top_lists
from tslrec.evaluation.reranking import rerank, reranked_ranks
from tslrec.llm.prompt_packing import PackedPrompts, PromptPacker
from tslrec.llm.prompted import add_lora
from tslrec.llm.text import TextLLM
from tslrec.settings.language_models import LoraConfig

if TYPE_CHECKING:
    from transformers import LlamaModel

FILE = golden_folder() / "rivals" / "LlamaRec.npz"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="the reference files are not beside the checkout")

BOS, END = 1, 2


@cache
def golden() -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of the file, and what its `meta` says."""
    with np.load(FILE) as file:
        return {name: file[name] for name in file.files if name != "meta"}, json.loads(str(file["meta"]))


def unpadded(ids: str, mask: str) -> list[NDArray[np.int64]]:
    arrays, _ = golden()
    return [row[kept > 0].astype(np.int64) for row, kept in zip(arrays[ids], arrays[mask], strict=True)]


def common_start(prompts: list[NDArray[np.int64]]) -> tuple[int, ...]:
    """What all prompts begin with that were not cut."""
    whole = [prompt for prompt in prompts if len(prompt) < max(len(each) for each in prompts)] or prompts
    shortest = min(len(prompt) for prompt in whole)
    equal = np.all([prompt[:shortest] == whole[0][:shortest] for prompt in whole], axis=0)
    return tuple(whole[0][: int(np.argmin(equal))].tolist())


def ranker(prefix: tuple[int, ...], *, shared_prefix: bool) -> tuple[TextLLM, PromptPacker]:
    """The reference's model, around which LoRA still changes nothing, and the packer of its prompts."""
    from transformers import LlamaConfig, LlamaModel

    arrays, meta = golden()
    numbers = dict(meta["config"])
    rope = {"rope_type": "default", "rope_theta": numbers.pop("rope_theta")}
    base: LlamaModel = LlamaModel(LlamaConfig(**numbers, rope_parameters=rope))
    weights = {name[2:]: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("w/")}
    base.load_state_dict(
        {name.removeprefix("model."): value for name, value in weights.items() if "lm_head" not in name}
    )
    head_VH = None if numbers["tie_word_embeddings"] else weights["lm_head.weight"]
    lora = LoraConfig(2, 4, 0.0, ["q_proj", "v_proj"])
    model = TextLLM(add_lora(base, lora), prefix, head_VH, shared_prefix=shared_prefix)
    packer = PromptPacker(prefix if shared_prefix else (), packs=shared_prefix, kept=2)
    return model.eval(), packer


WAYS = pytest.mark.parametrize("shared_prefix", [True, False])


@WAYS
def test_the_letters_of_a_test_prompt_have_the_references_logits(shared_prefix: bool) -> None:
    arrays, _ = golden()
    prompts = unpadded("prompt_ids", "prompt_mask")
    prefix = common_start(prompts)
    assert len(prefix) > 100
    assert prefix[0] == BOS
    model, packer = ranker(prefix, shared_prefix=shared_prefix)
    packed = packer(prompts)
    if shared_prefix:
        # Some are so long that the instruction was cut off: they share BOS with the others, and nothing else.
        assert set(packed.shared_B.tolist()) <= {1, len(prefix)}
    with torch.no_grad():
        states_BH = model.end_states(packed)[:, 0]
        logits_BV = states_BH @ model.head_VH().T
        scores_BC = model.token_scores(states_BH, torch.from_numpy(arrays["letter_ids"]))
    torch.testing.assert_close(logits_BV, torch.from_numpy(arrays["logits"]), atol=2e-5, rtol=0)
    torch.testing.assert_close(scores_BC, torch.from_numpy(arrays["scores"]), atol=2e-5, rtol=0)
    lists_BC = torch.from_numpy(arrays["candidates"]).long()
    targets_B = lists_BC.gather(1, torch.from_numpy(arrays["label"]).long()[:, None])[:, 0]
    ranks_B = reranked_ranks(
        rerank(lists_BC, scores_BC), lists_BC.shape[1], targets_B, torch.full((len(lists_BC),), torch.inf).double()
    )
    assert (ranks_B - 1).tolist() == arrays["rank"].tolist()
    check_metrics(ranks_B, "metrics")


@WAYS
def test_a_training_batch_has_the_references_loss_and_gradients(shared_prefix: bool) -> None:
    arrays, _ = golden()
    whole = unpadded("train_ids", "train_mask")
    answers = [row[kept > 0][-2:] for row, kept in zip(arrays["train_labels"], arrays["train_mask"], strict=True)]
    assert all(row[-1] == END for row in answers)
    # The end token is predicted, and never read. Theirs cut BOS off the longest prompts; ours keeps it.
    prompts = [row[:-1] for row in whole]
    prefix = common_start(prompts)
    model, packer = ranker(prefix, shared_prefix=shared_prefix)
    model.requires_grad_(True)
    packed: PackedPrompts = packer(prompts)
    if shared_prefix:
        assert set(packed.shared_B.tolist()) <= {0, len(prefix)}
    labels_BA = torch.from_numpy(np.array(answers)).long()
    loss = model.loss(model.end_states(packed, count=2), labels_BA) / labels_BA.numel()
    assert loss.item() == pytest.approx(float(arrays["train_loss"]), abs=1e-5)
    loss.backward()
    # The adapted layers are inside of LoRA's.
    gradients = {
        name.removeprefix("adapted.base_model.model.").replace(".base_layer", ""): parameter.grad
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    }
    wanted = {name.partition("/")[2]: value for name, value in arrays.items() if name.startswith("train_gradnorm/")}
    assert len(gradients) == len(wanted)
    for name, norm in wanted.items():
        found = gradients["token_head.weight" if name == "lm_head.weight" else name.removeprefix("model.")]
        assert found is not None
        torch.testing.assert_close(found.norm(), torch.tensor(norm), msg=name)


def test_two_stages_rank_as_the_reference() -> None:
    arrays, _ = golden()
    scores_UI = torch.from_numpy(arrays["two_retriever_scores"]).double()
    targets_U = torch.from_numpy(arrays["two_target"]).long()
    rows_S, places_S = arrays["two_seen"].nonzero()
    seen_items_S = torch.from_numpy(arrays["two_seen"][rows_S, places_S]).long()
    # Each user's scores are those of a vector of its own.
    users_UU = torch.eye(len(scores_UI), dtype=torch.float64)
    given = (torch.from_numpy(rows_S), seen_items_S)
    retrieved_U, _ = target_ranks(users_UU, scores_UI.T.contiguous(), targets_U, *given)
    count = arrays["two_candidates"].shape[1]
    lists_UK, _ = top_lists(users_UU, scores_UI.T.contiguous(), count, *given)
    assert lists_UK.tolist() == arrays["two_candidates"].tolist()
    assert (lists_UK == targets_U[:, None]).any(dim=1).nonzero()[:, 0].tolist() == arrays["two_users"].tolist()
    letters_UK = torch.zeros(lists_UK.shape)
    letters_UK[torch.from_numpy(arrays["two_users"])] = torch.from_numpy(arrays["two_letter_scores"])
    ranks_U = reranked_ranks(rerank(lists_UK, letters_UK), count, targets_U, retrieved_U)
    unread_U = torch.from_numpy(arrays["two_final_rank"]) < 0
    assert (ranks_U[~unread_U] - 1).tolist() == arrays["two_final_rank"][~unread_U.numpy()].tolist()
    # There a target that was not retrieved has no rank; here it keeps its own, which is behind the candidates.
    assert torch.equal(ranks_U[unread_U], retrieved_U[unread_U])
    assert (ranks_U[unread_U] > count).all()
    check_metrics(ranks_U[~unread_U], "two_subset")
    check_metrics(ranks_U, "two_overall")
    check_metrics(retrieved_U.where(~unread_U, torch.inf), "two_retriever")


def check_metrics(ranks_B: torch.Tensor, name: str) -> None:
    """Compares each metric that the reference has with ours of these ranks."""
    for metric, value in golden()[1][name].items():
        kind, k = parse_metric(metric)
        found = kind(k)
        assert isinstance(found, RankMetric)
        found.update(ranks_B.double())
        assert float(found.compute()) == pytest.approx(value, abs=1e-6), metric
