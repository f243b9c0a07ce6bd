"""A million items: the softmax over all of them, and over a sample.

The steps are in the modules `scale_….py` beside this one.
"""

from __future__ import annotations

from gpu_parts.bench import Step
from gpu_parts.scale_captured import captured
from gpu_parts.scale_chunks import chunk_sizes
from gpu_parts.scale_comparison import losses, peers
from gpu_parts.scale_evaluation import evaluation
from gpu_parts.scale_training import training_steps

STEPS: tuple[Step, ...] = (
    Step("training_64", 20, lambda bench: training_steps(bench, 64), "SASRec d 64, 4,096 targets: all items, a sample"),
    Step("losses", 10, losses, "the softmax alone, beside PyTorch's: seconds, memory, differences"),
    Step("evaluation", 6, evaluation, "4,096 users ranked among a million items"),
    Step("training_256", 10, lambda bench: training_steps(bench, 256), "SASRec d 256, 4,096 targets"),
    Step("captured", 4, captured, "the softmax over Beauty's items as a CUDA graph"),
    Step("chunk_sizes", 6, chunk_sizes, "logits held at a time"),
    Step("peers", 4, peers, "Liger and cut-cross-entropy, where they are installed"),
)
