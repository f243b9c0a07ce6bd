"""Beam search of ours beside transformers' `generate`, with the same T5, users and items, each in turn.

transformers gets a prefix function per user over a trie in dictionaries, as the public code of P5 does: of all items,
or without the user's seen items (its tries are built before the clock starts). Ours: one trie in arrays for all users.
Both start from the users' token ids. Prints the process's CPU time per user, which a busy machine disturbs least, and
whether the lists are equal: `python benchmarks/rivals/beams.py --sizes laptop`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from tslrec.llm.encoder_decoder.beams import generate_items
from tslrec.llm.encoder_decoder.building import build
from tslrec.llm.encoder_decoder.packing import Packer
from tslrec.llm.encoder_decoder.shape import END
from tslrec.llm.encoder_decoder.source import SIZES, shape_of
from tslrec.llm.encoder_decoder.t5_weights import from_t5_names
from tslrec.llm.encoder_decoder.trie import build_trie
from tslrec.settings.language_models import EncoderDecoderConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "t5"
WORDS, INDEX_TOKENS = 600, 500
"""Token ids of texts' words, and of items' codes behind them."""

DictTrie = dict[int, Any]


def main(words: Sequence[str]) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="laptop", choices=sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    parser.add_argument("--users", type=int, default=64, help="users of a batch")
    parser.add_argument("--items", type=int, default=12101, help="items, Beauty's number by default")
    parser.add_argument("--beams", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(words)
    rng = np.random.default_rng(0)
    theirs, ours = equal_models(given.sizes)
    codes = random_codes(given.items, rng)
    tokens = [np.append(rng.integers(2, WORDS, length), END) for length in 20 + 7 * histories(given.users, rng)]
    seen = [rng.integers(1, given.items + 1, 9) for _ in tokens]
    for masked in (False, True):
        tries = [dict_trie(codes, set(each.tolist())) for each in seen] if masked else [dict_trie(codes, set())]
        sides: dict[str, Callable[[], list[list[tuple[int, ...]]]]] = {
            "transformers": lambda tries=tries: their_lists(theirs, tokens, tries, given.beams),  # type: ignore[misc]
            "ours": lambda masked=masked: our_lists(ours, tokens, codes, seen if masked else None, given.beams),  # type: ignore[misc]
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        lists: dict[str, Any] = {}
        for _ in range(given.rounds):
            for side, run in sides.items():
                start = time.process_time()
                lists[side] = run()
                seconds[side].append(time.process_time() - start)
        kind = "masked" if masked else "unmasked"
        ratio = median(their / our for their, our in zip(seconds["transformers"], seconds["ours"], strict=True))
        equal = sum(a == b for a, b in zip(lists["transformers"], lists["ours"], strict=True))
        for side, each in seconds.items():
            print(f"beams_{given.sizes}_{kind}_{side} {1000 * median(each) / given.users:.2f} ms/user")
        print(f"beams_{given.sizes}_{kind}_ratio {ratio:.2f} x")
        print(f"beams_{given.sizes}_{kind}_equal_lists {equal} of {given.users}")


def equal_models(sizes: str) -> tuple[Any, Any]:
    """A T5 of transformers' and one of ours with the same random weights, in evaluation; whole words are zero."""
    from transformers import T5Config, T5ForConditionalGeneration

    t5 = EncoderDecoderConfig(**yaml.safe_load((CONFIGS / f"{sizes}.yaml").read_text()))
    shape = shape_of(t5)
    vocabulary = WORDS + INDEX_TOKENS
    config = {"vocab_size": vocabulary, "decoder_start_token_id": 0, **{name: getattr(shape, name) for name in SIZES}}
    torch.manual_seed(0)
    theirs = T5ForConditionalGeneration(T5Config(**config)).eval()
    ours = build(t5, vocabulary).eval()
    ours.load_state_dict(
        {**from_t5_names(theirs.state_dict()), "whole_words.weight": torch.zeros_like(ours.whole_words.weight)}
    )
    return theirs, ours


def histories(number: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Items of instances' histories, as skewed as those of Beauty's training prefixes with 20 at most.

    Of those, a quarter have 2 or fewer, half 4, three quarters 9, a tenth 20.
    """
    return np.clip(rng.lognormal(np.log(4.4), 1.15, number), 1, 20).astype(np.int64)


def random_codes(num_items: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Codes like a collaborative index: three tokens of text, then two tokens of the cluster's and the item's own."""
    places = rng.permutation(INDEX_TOKENS * INDEX_TOKENS // 10)[:num_items]
    groups, last = np.divmod(places, INDEX_TOKENS)
    pairs = zip((WORDS + groups).tolist(), (WORDS + last).tolist(), strict=True)
    return [(), *((2, 3, 4, group, item, END) for group, item in pairs)]


def dict_trie(codes: Sequence[tuple[int, ...]], seen: set[int]) -> DictTrie:
    """The items that are not seen, as nested dictionaries."""
    root: DictTrie = {}
    for item, code in enumerate(codes):
        node = root
        for token in code if item not in seen else ():
            node = node.setdefault(token, {})
    return root


@torch.no_grad()
def their_lists(
    model: Any, tokens: Sequence[NDArray[np.int64]], tries: Sequence[DictTrie], num_beams: int
) -> list[list[tuple[int, ...]]]:
    """Lists by transformers; one trie per user, or one for all."""

    def allowed(user: int, prefix: torch.Tensor) -> list[int]:
        node = tries[user % len(tries)]
        for token in prefix.tolist()[1:]:
            node = node.get(token, {})
        return list(node) or [END]

    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(each) for each in tokens], batch_first=True)
    found = model.generate(
        padded,
        attention_mask=(padded != 0).long(),
        num_beams=num_beams,
        num_return_sequences=num_beams,
        prefix_allowed_tokens_fn=allowed,
        max_length=30,
    )
    rows = [tuple(row[1 : row.index(END) + 1]) for row in found.tolist()]
    return [rows[start : start + num_beams] for start in range(0, len(rows), num_beams)]


def our_lists(
    model: Any,
    tokens: Sequence[NDArray[np.int64]],
    codes: Sequence[tuple[int, ...]],
    seen: Sequence[NDArray[np.int64]] | None,
    num_beams: int,
) -> list[list[tuple[int, ...]]]:
    """Lists by our search; the trie is built in it, too, which happens once for all users of a data set."""
    trie = build_trie(codes)
    sources = Packer().sources(tokens, [np.zeros_like(each) for each in tokens])
    items_UK, _ = generate_items(model, sources, trie, None if seen is None else trie.seen(seen), num_beams=num_beams)
    return [[codes[item] for item in items] for items in items_UK.tolist()]


if __name__ == "__main__":
    main(sys.argv[1:])
