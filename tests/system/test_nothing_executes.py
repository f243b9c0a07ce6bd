"""No file that a user can name is unpickled: a pickle in its place is refused and its code does not run."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.checkout import CHECKOUT
from support.in_process import RUN, forge, train_here
from tslrec.llm.loading import load
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig
from tslrec.system.errors import UserError
from tslrec.training.checkpoint_io import TENSORS, TREE, CheckpointFiles
from tslrec.training.checkpoints import Checkpoints

EXECUTING = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "pandas"}
"""Modules that no source may import, because loading with them can execute code."""
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.jit.load", "torch.package.PackageImporter"}
CALLS |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "OmegaConf.unsafe_load"}
CALLS |= {"numpy.load", "np.load", "polars.DataFrame.deserialize", "pl.DataFrame.deserialize", "get_method.load"}
EXCEPTIONS = {
    # DeepSpeed loads shards of the run's own checkpoints, whose hashes were checked with the manifest.
    ("src/tslrec/training/deepspeed_zero.py", "self.deepspeed_engine.load_checkpoint"),
    # RecTools takes a pandas frame; the benchmark makes it in memory and lets pandas read no file.
    ("benchmarks/peer_side_rectools.py", "import pandas"),
    ("benchmarks/side_rectools.py", "import pandas"),
    # Gives pandas an option that RecBole needs; no file is read by it.
    ("benchmarks/newer_packages.py", "import pandas"),
}
"""Allowed calls and imports."""


class Executing:
    """An object that creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.canary), "w")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """The file that unpickling would create; the test fails if it exists."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists()


def write_pickle(path: Path, canary: Path, kind: str) -> None:
    """Writes an executing pickle with Python's pickle, or with `torch.save`."""
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Executing(canary)))
    else:
        torch.save({"state_dict": Executing(canary)}, path)


KINDS = pytest.mark.parametrize("kind", ["pickle", "torch"])


@KINDS
def test_unpickling_these_files_would_execute(kind: str, tmp_path: Path) -> None:
    write_pickle(tmp_path / "evil", tmp_path / "made", kind)
    if kind == "pickle":
        pickle.loads((tmp_path / "evil").read_bytes()).close()
    else:
        torch.load(tmp_path / "evil", weights_only=False)
    assert (tmp_path / "made").exists()


@KINDS
@pytest.mark.parametrize("data", ["csv", "parquet", "atomic", "user_lines", "pair_lines"])
def test_a_pickle_as_data_is_refused(data: str, kind: str, canary: Path, tmp_path: Path) -> None:
    path = tmp_path / f"data.{data}"
    write_pickle(path, canary, kind)
    ended = train_here("method=base", f"data={data}", f"data.path={path}", folder=tmp_path)
    assert str(path) in ended.refusal


@KINDS
@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors", "pytorch_model.bin", "shard.bin"])
def test_a_pickle_as_a_language_model_is_refused(name: str, kind: str, canary: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    if name == "shard.bin":
        index = {"metadata": {}, "weight_map": {"embed_tokens.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_pickle(folder / name, canary, kind)
    path = folder / name if name.endswith(".gguf") else folder
    with pytest.raises(UserError, match=str(folder)):
        resolve(LLMConfig(name="own", path=str(path)), tmp_path)


def test_code_in_a_language_models_folder_is_not_run(canary: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for part in load(resolve(LLMConfig(name="tiny", random={}), tmp_path), dtype="float32"):
        part.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(canary)!r}, 'w')\nclass Own: ...\n")
    source = resolve(LLMConfig(name="own", path=str(folder)), tmp_path)
    with pytest.raises(UserError, match="code of its own"):
        load(source, dtype="float32")


@pytest.mark.parametrize(
    ("file", "recomputed"),
    [
        ("data/*/interactions.parquet", "backbone"),
        ("backbone/*/item_embeddings.safetensors", "preferences"),
        ("preferences/*/preferences.safetensors", "sft"),
        ("sft/*/heads.safetensors", "augment"),
        ("sft/*/adapter/adapter_model.safetensors", "augment"),
        ("augment/*/knowledge-00000.safetensors", "fusion"),
    ],
)
def test_a_pickle_as_an_artifact_is_refused_even_where_its_manifest_agrees(
    file: str, recomputed: str, finished_run: Path, canary: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "artifacts" / recomputed)
    (path,) = (tmp_path / "artifacts").glob(file)
    write_pickle(path, canary, "pickle")
    forge(path)
    assert str(path.parent) in train_here(*RUN, folder=tmp_path).refusal


@KINDS
@pytest.mark.parametrize("name", [TENSORS, TREE])
def test_a_pickle_as_a_checkpoint_is_refused_even_where_its_manifest_agrees(
    name: str, kind: str, canary: Path, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path / "stage.checkpoints")
    checkpoints.begin()
    CheckpointFiles().save_checkpoint({"weights": torch.zeros(2)}, checkpoints.aside / "state")
    write_pickle(checkpoints.aside / "state" / name, canary, kind)
    checkpoints.publish(1, {})
    newest = checkpoints.newest()
    assert newest is not None
    with pytest.raises(UserError, match=name):
        CheckpointFiles().load_checkpoint(newest[0] / "state")


def sources() -> list[Path]:
    found = [CHECKOUT / "train.py", *(CHECKOUT / "src").rglob("*.py"), *(CHECKOUT / "benchmarks").rglob("*.py")]
    assert len(found) > 50
    return found


def risks(path: Path) -> Iterator[str]:
    """The imports and calls of a source file that could execute what they load."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            yield from (f"import {name}" for name in names if name.partition(".")[0] in EXECUTING)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {each.arg: ast.unparse(each.value) for each in node.keywords}
        if called in ("torch.load", "np.load", "numpy.load"):
            safe = {"torch.load": keywords.get("weights_only") == "True"}
            if not safe.get(called, keywords.get("allow_pickle", "False") == "False"):
                yield called
        elif called in CALLS or called.endswith((".load_checkpoint", ".load_from_checkpoint", ".read_pickle")):
            if called not in ("CheckpointFiles().load_checkpoint",):
                yield called
        elif called.endswith(".from_pretrained") and called.startswith("Auto"):
            if keywords.get("trust_remote_code") != "False":
                yield f"{called} without trust_remote_code=False"
            if called.startswith("AutoModel") and not {"use_safetensors", "gguf_file"} & keywords.keys():
                yield f"{called} without use_safetensors"


def test_no_source_loads_files_that_can_execute() -> None:
    found = {(path.relative_to(CHECKOUT).as_posix(), risk) for path in sources() for risk in risks(path)}
    assert found == EXCEPTIONS


def test_the_source_check_finds_unsafe_calls_and_allows_safe_ones(tmp_path: Path) -> None:
    unsafe = ["import pickle", "from joblib import load", "torch.load(path)", "torch.load(path, weights_only=False)"]
    unsafe += ["np.load(path, allow_pickle=True)", "yaml.load(text)", "eval(text)", "exec(text)"]
    unsafe += ["Module.load_from_checkpoint(path)", "AutoModel.from_pretrained(path, trust_remote_code=True)"]
    for line in unsafe:
        (tmp_path / "source.py").write_text(line)
        assert list(risks(tmp_path / "source.py")), line
    for line in ["torch.load(path, weights_only=True)", "np.load(path)", "yaml.safe_load(text)", "model.eval()"]:
        (tmp_path / "source.py").write_text(line)
        assert not list(risks(tmp_path / "source.py")), line
