"""What each of two processes takes while ZeRO-3 partitions a language model as it is read.

`python benchmarks/zero_loading.py`. The model is a random Llama in float32 whose largest module is a small part of it,
as it is in large ones, written to a folder of its own. Ends with one line per figure, `name value unit`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PROCESSES, POLL_SECONDS = 2, 0.005


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "write", folder], check=True)
        processes = []
        for rank in range(PROCESSES):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29731", "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "load", folder]
            processes.append(subprocess.Popen(command, env={**os.environ, **place}, stderr=subprocess.DEVNULL))
        if any(process.wait() for process in processes):
            raise SystemExit("error: a process failed")


def write(folder: str) -> None:
    from transformers import LlamaConfig, LlamaModel

    sizes = LlamaConfig(
        vocab_size=1000, hidden_size=768, intermediate_size=2048, num_hidden_layers=32, num_attention_heads=12
    )
    model = LlamaModel(sizes)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    print("zero_loading_model", round(4 * numbers / 2**20), "MiB", flush=True)
    model.save_pretrained(folder)


def load(folder: str) -> None:
    """One process's: memory of its own, without the pages of the file, above what the imports had taken."""
    rank = int(os.environ["RANK"])
    import deepspeed

    # Its compiled communication is built when it is first used, which takes a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo")
    import torch
    from transformers import AutoModel

    from tslrec.system.memory import keep_freed_memory
    from tslrec.training.deepspeed_zero import ZeroStrategy, partitioned_loading

    keep_freed_memory()
    strategy = ZeroStrategy(
        stage=3,
        offload_parameters=True,
        offload_optimizer=True,
        persistence_threshold=0,
        process_group_backend="gloo",
    )
    # No trainer is there to say in which precision it computes.
    strategy._init_config_if_needed = lambda: None  # type: ignore[method-assign]
    before, peak, over = own_memory(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(POLL_SECONDS):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with partitioned_loading(strategy):
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    over.set()
    watcher.join()
    held = 4 * sum(parameter.ds_tensor.numel() for parameter in model.parameters()) / 2**20
    for name, value in (("share", held), ("peak", peak - before), ("after", own_memory() - before)):
        print(f"zero_loading_{name}/process_{rank}", round(value), "MiB", flush=True)
    torch.distributed.barrier()


def own_memory() -> float:
    """Resident memory that no file backs, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status names no RssAnon")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["write", folder]:
            write(folder)
        case ["load", folder]:
            load(folder)
        case _:
            raise SystemExit(__doc__)
