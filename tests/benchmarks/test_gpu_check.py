"""The part `check` of the GPU benchmark: what it compares, what it says of failures, and a rehearsal of its steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.check import STEPS
from gpu_parts.check_kernel import compare
from gpu_parts.check_machine import failure, start_import
from gpu_parts.check_processes import planned
from gpu_parts.check_quantised import TOLERANCE, check_quantised, write_llama
from gpu_parts.check_runs import difference
from gpu_parts.check_tests import FILES, read_report
from gpu_parts.check_tslrec import check_recommender
from support.checkout import CHECKOUT, PYTHONPATH
from support.waiting import HANG_SECONDS


def bench_in(folder: Path, device: str = "cpu") -> Bench:
    return Bench(device, device == "cpu", folder, folder)


def write_weights(folder: Path, weights: list[float], rank: float = 1.0) -> None:
    stage = folder / "artifacts" / "backbone" / "key"
    stage.mkdir(parents=True)
    save_file({"weights": torch.tensor(weights)}, stage / "model.safetensors")
    save_file({"masked": torch.tensor([rank])}, stage / "ranks.safetensors")


def test_the_budgets_leave_room_for_the_other_parts() -> None:
    assert sum(step.seconds for step in STEPS) < 110


def test_a_difference_is_of_bits_and_its_size_of_weights(tmp_path: Path) -> None:
    write_weights(tmp_path / "one", [1.0, 0.0, float("nan")])
    write_weights(tmp_path / "same", [1.0, 0.0, float("nan")])
    write_weights(tmp_path / "other", [1.0, 0.25, 2.0], rank=9)
    assert difference(tmp_path / "one", tmp_path / "same").sentence() == "all 2 arrays have the same bits"
    write_weights(tmp_path / "finite", [1.0, 0.0, 1.5], rank=1)
    found = difference(tmp_path / "finite", tmp_path / "other")
    assert (found.arrays, len(found.unequal), found.largest) == (2, 2, 0.5)
    assert "2 of 2 arrays differ, by at most 0.5" in found.sentence()


def test_results_of_other_names_are_no_pair(tmp_path: Path) -> None:
    write_weights(tmp_path / "one", [1.0])
    (tmp_path / "none").mkdir()
    with pytest.raises(RuntimeError, match="other results"):
        difference(tmp_path / "one", tmp_path / "none")


def test_on_a_card_each_way_is_run_twice_killed_twice_and_under_ddp(tmp_path: Path) -> None:
    chains, pairs = planned(bench_in(tmp_path, "cuda"))
    by_name = {chain.name: chain for chain in chains}
    assert len(by_name) == len(chains)
    assert {name for pair in pairs.values() for name in pair} == set(by_name)
    for way in {name.partition("_")[0] for name in pairs} - {"ddp"}:
        whole = by_name[f"{way}_whole"]
        for name in ("twice", "resumed_backbone", "resumed_sft"):
            assert by_name[f"{way}_{name}"].overrides == whole.overrides
            assert (by_name[f"{way}_{name}"].kill is None) == (name == "twice")
    assert "trainer=gpu" in by_name["alone"].overrides
    assert {"trainer=ddp", "trainer.devices=1"} <= set(by_name["ddp"].overrides)


def test_a_package_is_missing_broken_or_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise OSError('no library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = {name: failure(start_import(name), name) for name in ("json", "no_such_package", "broken_package")}
    assert found == {"json": None, "no_such_package": "is not installed", "broken_package": "OSError: no library"}


def test_failed_tests_are_named(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a" name="good"/><testcase classname="a" name="bad"><failure/>'
        '</testcase><testcase classname="b" name="broken"><error/></testcase><testcase classname="b" name="left">'
        "<skipped/></testcase></testsuite></testsuites>"
    )
    counts = read_report(report)
    assert (counts.passed, counts.failed, counts.skipped) == (1, ("a::bad", "b::broken"), 1)


def test_the_softmax_is_compared_with_float64(tmp_path: Path) -> None:
    errors, same = compare(bench_in(tmp_path), 30, 103, 8)
    assert errors.keys() == {"loss", "user", "table"}
    assert all(0 <= error < 1e-5 for error in errors.values())
    assert same


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotMeasuredError, match="need a GPU"):
        check_quantised(bench_in(tmp_path))
    with pytest.raises(NotMeasuredError, match="step tslrec"):
        check_recommender(bench_in(tmp_path))


def test_the_random_llama_is_one_that_can_be_quantised(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    write_llama(tmp_path)
    llama = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    linear = [module for module in llama.modules() if isinstance(module, torch.nn.Linear)]
    # bitsandbytes quantises blocks of 64 weights.
    assert linear
    assert all(layer.in_features % 64 == 0 and layer.out_features % 64 == 0 for layer in linear)
    assert AutoTokenizer.from_pretrained(tmp_path).encode("user")
    assert set(TOLERANCE) == {8, 4}


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_pytest_refuses_the_device_in_one_line() -> None:
    ended = run_pytest("--device=cuda", FILES[0])
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert ended.stderr.strip().splitlines() == [
        "ERROR: --device cuda: PyTorch sees no GPU here; leave it out to test on the CPU"
    ]


def test_the_files_that_run_on_a_card_are_there() -> None:
    assert all((CHECKOUT / name).exists() for name in FILES)


@pytest.mark.slow
def test_every_step_rehearses_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "gpu.py"), "--rehearse", "--part", "check"]
    ended = subprocess.run(
        [*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = {
        name.partition("/")[2]: facts
        for name, facts in json.loads((tmp_path / "gpu.json").read_text())["steps"].items()
    }
    assert steps.keys() == {step.name for step in STEPS}
    ends = {name: facts["ended"] for name, facts in steps.items()}
    assert ends.pop("quantised") == "not measured"
    # Measured as soon as there is a kernel; its rehearsal needs none.
    assert ends.pop("kernel") in ("measured", "not measured")
    assert set(ends.values()) == {"measured"}, steps
    value = {
        f"{step}/{name}": each["value"] for step, facts in steps.items() for name, each in facts["figures"].items()
    }
    assert value["machine/packages_missing"] == 0
    assert value["machine/float32"] > 0
    assert value["tests/passed"] > 0
    assert value["tests/failed"] == 0
    # On a CPU a resumed run, and DDP of one process, have the bits of a whole one.
    assert value["processes/plain_resumed_sft_arrays_that_differ"] == 0
    assert value["processes/ddp_arrays_that_differ"] == 0
    assert value["recommend/masked_ranks_equal"] == 100
    # The two runs are the same here.
    assert steps["tslrec"]["figures"]["ndcg_at_10"]["cpu"] == pytest.approx(value["tslrec/ndcg_at_10"], abs=1e-3)
