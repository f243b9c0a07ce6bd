"""The wording of LlamaRec's prompt (Yue et al. 2023), ours in the layout of the public code.

Another wording gives other results: raise the version of the stage `ranker`, whose key does not hold it.

Each part but the first begins with a space before a character that is none (see `tslrec.stages.llamarec.prompt`).
"""

from __future__ import annotations

import string

HEAD = (
    "### Instruction:\nA user chose the items of the history one after the other. Which item of the candidate pool "
    "does the user choose next? Recommend one by its index letter.\n\n### Input:\nUser history:"
)
"""The text before the history, which all prompts share."""

SEPARATOR = " \n"
"""Between two items of a list."""

POOL = " \n Candidate pool:"
"""Between the history and the candidates."""

TAIL = " \n\n### Response:\n"
"""After the candidates; the answer is the letter that follows."""

LETTERS = string.ascii_uppercase
"""The index letters of candidates."""
