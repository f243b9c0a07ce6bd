"""LlamaRec's batches: training prompts with their answers, and users whose retrieved candidates are reranked.

Shapes: N training instances, B examples or users of a batch, A tokens of an answer, P ranking protocols, X items of a
list, K of them that are reranked, M prompts of a batch, S (user, item) pairs of histories.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.batching import Batches, rank_share
from tslrec.data.evaluated_users import evaluation_batches, seen_items
from tslrec.data.interactions import TEST, VALIDATION, Interactions
from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.llm.prompt_packing import PackedPrompts, PromptPacker
from tslrec.llm.title_tokens import ItemTokens
from tslrec.settings.rivals import LlamaRecConfig
from tslrec.stages.llamarec.instances import CANDIDATE_STREAM, VisitBatches, training_candidates, training_prefixes
from tslrec.stages.llamarec.prompt import PromptPieces
from tslrec.stages.llamarec.retrieval import Retrieved
from tslrec.system.errors import UserError
from tslrec.system.processes import rank_and_world_size


class AnsweredBatch(NamedTuple):
    """This process's share of the training instances of one optimizer step.

    Attributes:
        prompts: with the letter of the answer at the end.
        labels_BA: int64, the tokens of the answers: a letter, and the end token where there is one.
        counted: False on a rank without instances of its own: it runs a duplicate, because every rank must take part
            in the step, and the result is discarded.
        num_labels: tokens of all answers of the step, over all processes.
    """

    prompts: PackedPrompts
    labels_BA: Tensor
    counted: bool
    num_labels: int


class ListsBatch(NamedTuple):
    """Users to evaluate.

    Attributes:
        prompts: what the language model reads of them; None where it reads nothing.
        prompts_PB: int64, the prompt that reranks each user's list; -1: the list stays as it is.
        lists_PBX: int64, the retriever's lists.
        ranks_PB: float64, the ranks that the retriever gives the targets.
        users_B: int64, rows of the users in the data set.
        targets_B: int64, item ids to rank.
        seen_rows_S: int64, index in this batch of the user of each pair (see `EvaluatedUsers`).
        seen_items_S: int64, item id of each pair.
        counted: False on a rank without users of its own: it runs a duplicate, because ZeRO-3 gathers weights
            collectively; the result is discarded.
    """

    prompts: PackedPrompts | None
    prompts_PB: Tensor
    lists_PBX: Tensor
    ranks_PB: Tensor
    users_B: Tensor
    targets_B: Tensor
    seen_rows_S: Tensor
    seen_items_S: Tensor
    counted: bool


class RankerDataModule(lightning.LightningDataModule):
    """Training batches of instances, and validation and test batches of users.

    Args:
        interactions: the data set.
        pieces: of the prompts.
        items: the tokens of the titles.
        packer: puts prompts into rows.
        numbers: LlamaRec's settings.
        retrieved: what the retriever gives for the users of each evaluation, by `VALIDATION` and `TEST`.
        seed: decides the order of the instances, their share and their candidates.
        tests_lists: whether the test needs the reranked lists also of users whose target was not retrieved.

    Raises:
        UserError: if no user has two training items, so that there is nothing to train on.
    """

    def __init__(
        self,
        interactions: Interactions,
        pieces: PromptPieces,
        items: ItemTokens,
        packer: PromptPacker,
        *,
        numbers: LlamaRecConfig,
        retrieved: Mapping[int, Retrieved],
        seed: int,
        tests_lists: bool = False,
    ) -> None:
        super().__init__()
        self.interactions = interactions
        self.pieces = pieces
        self.items = items
        self.packer = packer
        self.numbers = numbers
        self.retrieved = retrieved
        self.seed = seed
        self.tests_lists = tests_lists
        self.prefixes = training_prefixes(interactions, numbers.history, numbers.share, seed)
        if len(self.prefixes) == 0:
            raise UserError(f"{interactions.name}: no user has two training items; give data with longer histories")
        steps, per_epoch = training_steps(len(self.prefixes), numbers)
        self.num_steps = steps
        self.batches = Batches(
            VisitBatches(len(self.prefixes), numbers.batch_size, seed, per_epoch), self.collate_instances
        )

    @property
    def num_epochs(self) -> int:
        """How often the trainer validates, if it does not stop before."""
        return self.num_steps // len(self.batches)

    def train_dataloader(self) -> Batches[AnsweredBatch]:
        return self.batches

    def val_dataloader(self) -> Batches[ListsBatch]:
        return self.evaluation(VALIDATION, needs_lists=False)

    def test_dataloader(self) -> Batches[ListsBatch]:
        return self.evaluation(TEST, needs_lists=self.tests_lists)

    def collate_instances(self, step: NDArray[np.int64]) -> AnsweredBatch:
        """This process's share of one step.

        Args:
            step: instances and the number of the pass, `[2, B]`.
        """
        mine_B, counted = rank_share(step[0])
        prompts, labels = [], []
        for instance in mine_B.tolist():
            tokens, answer = self.example(instance, int(step[1, 0]))
            prompts.append(tokens)
            labels.append(answer)
        num_labels = len(step[0]) * len(labels[0])
        return AnsweredBatch(self.packer(prompts), torch.tensor(labels), counted, num_labels)

    def example(self, instance: int, visit: int) -> tuple[NDArray[np.int64], list[int]]:
        """A training prompt with its letter, and the tokens of the answer.

        Its candidates depend on the seed, the instance and the number of the pass, and on nothing else.

        Args:
            instance: index into `self.prefixes`.
            visit: the number of the pass.
        """
        items = self.interactions.items
        start, end = int(self.prefixes.starts[instance]), int(self.prefixes.ends[instance])
        begin = int(self.interactions.offsets[self.prefixes.users[instance]])
        candidates, place = training_candidates(
            items[begin:end].astype(np.int64),
            int(items[end]),
            num_items=self.interactions.num_items,
            count=self.numbers.candidates,
            draw=np.random.default_rng([self.seed, CANDIDATE_STREAM, visit, instance]),
        )
        letter, last = int(self.pieces.answer.letters_C[place]), self.pieces.answer.end
        tokens = np.append(self.pieces.prompt(items[start:end].astype(np.int64), candidates, self.items), letter)
        return tokens, [letter] if last is None else [letter, last]

    def evaluation(self, held_out: int, *, needs_lists: bool) -> Batches[ListsBatch]:
        """This rank's batches of an evaluation; over all ranks each evaluated user occurs once.

        The users whom the language model need not read are in the first one.

        Args:
            held_out: `TEST` or `VALIDATION`.
            needs_lists: whether the lists of all users are wanted, and not the ranks alone.
        """
        retrieved = self.retrieved[held_out]
        needed_U = self.needed_users(held_out, needs_lists=needs_lists)
        read, unread = retrieved.users_U[needed_U], retrieved.users_U[~needed_U]
        rank, world_size = rank_and_world_size()
        splits = [unread[rank::world_size]]
        if len(read):
            # A negative number stands for a duplicate that does not count.
            shares = evaluation_batches(self.interactions, read, self.numbers.eval_batch_size)
            splits += [share if len(share) else -1 - read[:1] for share in shares]
        return Batches(splits, lambda users_B: self.collate_users(users_B, held_out, needs_lists=needs_lists))

    def needed_users(self, held_out: int, *, needs_lists: bool) -> NDArray[np.bool_]:
        """Of which users of an evaluation the language model must read a list, under either protocol.

        Args:
            held_out: see `evaluation`.
            needs_lists: see `evaluation`.
        """
        found_PU = self.retrieved[held_out].holds_target(self.numbers.candidates)
        needed_U: NDArray[np.bool_] = np.any(found_PU, axis=0) | needs_lists
        return needed_U

    def collate_users(self, users_B: NDArray[np.int64], held_out: int, *, needs_lists: bool) -> ListsBatch:
        """Users as a batch, with a prompt for each list that must be reranked.

        Args:
            users_B: rows of the users, possibly none; or of one that does not count, as -1 - row.
            held_out: see `evaluation`.
            needs_lists: see `evaluation`.
        """
        counted = bool((users_B >= 0).all())
        users_B = users_B if counted else -1 - users_B
        retrieved, count = self.retrieved[held_out], self.numbers.candidates
        rows_B = np.searchsorted(retrieved.users_U, users_B)
        lists_PBX, targets_B = retrieved.lists_PUX[:, rows_B].astype(np.int64), retrieved.targets_U[rows_B]
        wanted_PB = retrieved.holds_target(count)[:, rows_B] | needs_lists
        begins_B, ends_B = self.interactions.offsets[users_B], self.interactions.offsets[users_B + 1] - held_out
        prompts: list[NDArray[np.int64]] = []
        prompts_PB = np.full(wanted_PB.shape, -1)
        for b, (begin, end) in enumerate(zip(begins_B.tolist(), ends_B.tolist(), strict=True)):
            known: dict[bytes, int] = {}
            for protocol in range(len(PROTOCOLS)):
                candidates = lists_PBX[protocol, b, :count]
                if wanted_PB[protocol, b]:
                    # Where no seen item is among the first, both protocols have the same candidates.
                    place = known.setdefault(candidates.tobytes(), len(prompts))
                    prompts_PB[protocol, b] = place
                    if place == len(prompts):
                        prompts.append(self.prompt(begin, end, candidates))
        seen_rows_S, seen_items_S = seen_items(self.interactions, begins_B, ends_B)
        return ListsBatch(
            self.packer(prompts) if prompts else None,
            torch.from_numpy(prompts_PB),
            torch.from_numpy(lists_PBX),
            torch.from_numpy(retrieved.ranks_PU[:, rows_B]),
            torch.from_numpy(users_B),
            torch.from_numpy(targets_B),
            seen_rows_S,
            seen_items_S,
            counted,
        )

    def prompt(self, begin: int, end: int, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """The prompt of a user.

        Args:
            begin: where the user's items begin in the flat array.
            end: index after the last one of the history.
            candidates: item ids, best first; 0 is an empty place.
        """
        history = self.interactions.items[max(begin, end - self.numbers.history) : end].astype(np.int64)
        return self.pieces.prompt(history, candidates[candidates > 0], self.items)


def training_steps(num_instances: int, numbers: LlamaRecConfig) -> tuple[int, int]:
    """Optimizer steps of the whole training, and between two validations.

    All stretches between validations are equally long, so that the training takes a few steps more than the passes
    need: fewer than there are validations.

    Args:
        num_instances: N.
        numbers: LlamaRec's settings.
    """
    needed = -(-num_instances // numbers.batch_size) * numbers.max_epochs
    validations = numbers.max_epochs if numbers.steps_per_epoch is None else -(-needed // numbers.steps_per_epoch)
    between = -(-needed // validations)
    return between * validations, between
