"""Whether the rival method POD's prompts fit its T5, and the T5 this machine; nothing is trained, no weights are drawn.

Shapes: V vocabulary.
"""

from __future__ import annotations

from tslrec.config import Config
from tslrec.pipeline.check_models import refuse_too_large
from tslrec.stages.method_stages import stages_of
from tslrec.system.errors import UserError


def check_pod(config: Config) -> None:
    """Checks the sections `pod` and `t5` of a run of POD; any other method passes.

    Raises:
        UserError: naming the settings, and what to set.
    """
    if not any(stage.name == "pod" for stage in stages_of(config)):
        return
    check_whole_words(config)
    check_size(config)


def check_whole_words(config: Config) -> None:
    """Checks that the table of whole words has a row for each user and item that a prompt can name.

    Raises:
        UserError: with the rows that are needed.
    """
    numbers = config.pod
    longest = "candidates" if numbers.candidates > numbers.history else "history"
    # Row 0 is no word, row 1 the user.
    needed = 2 + max(numbers.candidates, numbers.history)
    if config.t5.whole_words < needed:
        raise UserError(
            f"t5.whole_words={config.t5.whole_words}: a prompt with pod.{longest}={needed - 2} items needs {needed}; "
            f"set it to that, or pod.{longest} lower"
        )


def check_size(config: Config) -> None:
    """Checks that a T5 of the configured sizes fits into the memory; that of given files is as large as they are.

    Raises:
        UserError: with the memory that it needs.
    """
    from tslrec.llm.encoder_decoder.source import shape_of

    shape = shape_of(config.t5)
    if config.t5.path is not None:
        return
    import torch

    from tslrec.llm.encoder_decoder.model import EncoderDecoder
    from tslrec.stages.pod.templates import NUM_TASKS
    from tslrec.stages.pod.vocabulary import vocabulary_of

    with torch.device("meta"):
        model = EncoderDecoder(
            shape,
            len(vocabulary_of(config.t5)),
            num_prompts=NUM_TASKS * config.pod.prompt_vectors,
            whole_words=config.t5.whole_words,
        )
    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    names = ("d_model", "d_ff", "num_layers", "num_decoder_layers")
    sizes = ", ".join(f"t5.{name}={getattr(config.t5, name)}" for name in names)
    refuse_too_large(float(needed), sizes)
