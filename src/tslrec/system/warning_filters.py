"""Silences warnings of other packages on which a user of this program cannot act."""

from __future__ import annotations

import logging
import warnings


def install_warning_filters() -> None:
    """Silences Lightning's remarks on hardware, loaders and processes, and DeepSpeed's that it found no GPU.

    Lightning's advice does not apply: the data modules build whole batches with array operations, so loader workers
    would not help, and metrics are summed over processes before they are logged.
    """
    logging.getLogger("DeepSpeed").addFilter(not_about_the_accelerator)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # A run of one process needs no `srun`, even on a machine of a cluster.
    warnings.filterwarnings("ignore", message=".*The `srun` command is available.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*Total length of `list` across ranks is zero.*")
    warnings.filterwarnings("ignore", message=".*`IterableDataset` has `__len__` defined.*")
    warnings.filterwarnings("ignore", message=".*`is_gradient_checkpointing` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*Starting from v1.9.0, `tensorboardX`.*")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")


def without_loading_bars() -> None:
    """Hides the progress bars that transformers shows while it loads weights: it takes about a second."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def not_about_the_accelerator(record: logging.LogRecord) -> bool:
    """Logging filter: False for the message that DeepSpeed logs on import on a machine without a GPU."""
    return not record.getMessage().startswith("Setting accelerator to CPU")
