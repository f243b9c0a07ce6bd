"""Whether the code is right on a GPU: reference files, contracts, resuming, processes, quantised weights.

The steps are in the modules `check_….py` beside this one.
"""

from __future__ import annotations

from gpu_parts.bench import Step
from gpu_parts.check_kernel import check_kernel
from gpu_parts.check_machine import check_machine
from gpu_parts.check_processes import check_processes
from gpu_parts.check_quantised import check_quantised
from gpu_parts.check_tests import check_tests
from gpu_parts.check_tslrec import check_recommender, check_tslrec

STEPS: tuple[Step, ...] = (
    Step("machine", 14, check_machine, "rates of products and copies, and which packages are missing"),
    Step("tests", 23, check_tests, "golden files and contract tests on the card"),
    Step("kernel", 6, check_kernel, "the softmax over all items against float64"),
    Step("processes", 27, check_processes, "killed and resumed, twice, DDP of one: the same bits?"),
    Step("tslrec", 17, check_tslrec, "all five stages on the card, beside the CPU's figures"),
    Step("recommend", 3, check_recommender, "the card's recommender ranks on the CPU as on the card"),
    Step("quantised", 12, check_quantised, "SFT over 8- and 4-bit weights against bf16"),
)
