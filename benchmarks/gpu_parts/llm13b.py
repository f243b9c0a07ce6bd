"""The language model at the paper's own size, Llama-2-13B with random weights: its cost on one card.

The SFT and E4SRec run through the project's own modules and trainer, the augmentation through the function that fills
the knowledge store. A figure stands beside what `tslrec plan` says. The card's own rate is that of a large product in
bfloat16; a share of it is the plan's count of operations over the time and that rate.

LoRA on q and v adds ten small kernels to a layer that has about forty, forward and backward: with the 160 tokens of a
default step the card waits for their launches and for the 26 GB of weights, which each pass reads once.

The steps are in the modules `llm13b_….py` beside this one.
"""

from __future__ import annotations

from gpu_parts.bench import Step
from gpu_parts.llm13b_augmentation import augmentation
from gpu_parts.llm13b_e4srec import e4srec
from gpu_parts.llm13b_figure3 import figure3
from gpu_parts.llm13b_offload import zero3_offload
from gpu_parts.llm13b_sft import sft
from gpu_parts.llm13b_weight_bits import weights_8bit_4bit

STEPS: tuple[Step, ...] = (
    Step(
        "sft", 57, sft, "13B SFT steps of 16 to 1,024 users; tokens/s, share of the product rate, peak beside the plan"
    ),
    Step("augmentation", 14, augmentation, "items a second into the knowledge store"),
    Step("e4srec", 31, e4srec, "E4SRec's training steps and its inference"),
    Step("figure3", 4, figure3, "hours of both methods on the whole of Beauty"),
    Step("zero3_offload", 88, zero3_offload, "SFT steps with the weights in host memory; the copy's floor"),
    Step("weights_8bit_4bit", 12, weights_8bit_4bit, "SFT steps on quantised weights, where bitsandbytes is installed"),
)
