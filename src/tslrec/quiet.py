"""What other packages say that no user of this one can act upon."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """Silences Lightning on hardware, loaders and processes, and DeepSpeed on finding itself on a CPU.

    Our data modules batch vectorised, without workers; our metrics sum over processes before they are logged.
    """
    logging.getLogger("DeepSpeed").addFilter(not_about_the_accelerator)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # A run of one process needs none, on a machine of a cluster as well.
    warnings.filterwarnings("ignore", message=".*The `srun` command is available.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*Total length of `list` across ranks is zero.*")
    warnings.filterwarnings("ignore", message=".*`IterableDataset` has `__len__` defined.*")
    warnings.filterwarnings("ignore", message=".*`is_gradient_checkpointing` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*Starting from v1.9.0, `tensorboardX`.*")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")


def without_loading_bars() -> None:
    """Hides the bars by which transformers shows that it puts weights into a model, which takes a second."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def not_about_the_accelerator(record: logging.LogRecord) -> bool:
    """Whether a message of DeepSpeed's says more than that it found no GPU, which it does whenever it is imported."""
    return not record.getMessage().startswith("Setting accelerator to CPU")
