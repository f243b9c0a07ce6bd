"""What `tslrec plan` prints on the language-model stages of TSLRec, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tslrec.cli.main import main
from tslrec.llm.tiny import byte_tokenizer, random_llama


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides that choose a small data set, in a folder of its own."""
    path = tmp_path / "data.txt"
    path.write_text(
        "".join(f"{user} " + " ".join(str(1 + (user + i) % 9) for i in range(8)) + "\n" for user in range(9))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TSLREC_CACHE", str(tmp_path / "cache"))
    return [f"data.path={path}", "data.download.sha256=null"]


def printed_plan(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(["plan", *overrides])
    return capsys.readouterr().out


def test_the_plan_of_13b_needs_neither_weights_nor_gpus_and_runs_nothing(
    data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = printed_plan(["experiment=tslrec_fmlp_beauty", *data], capsys)
    for word in ("12,852,024,320", "E4SRec", "gathered", "augmentation", "estimated", "h100", "(measured)", "PCIe"):
        assert word in printed, word
    assert all(len(line) <= 100 for line in printed.splitlines())
    assert not Path("artifacts").exists()


def test_the_total_is_that_of_the_way_that_runs(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["method=tslrec", "data=beauty", "llm=llama2_13b", *data]
    totals = {}
    for way in ("true", "false"):
        printed = printed_plan([*chosen, f"llm.shared_prefix={way}"], capsys)
        (totals[way],) = re.findall(r"([\d,]+)\s+TFLOP,", printed)
    rows = [line.split() for line in printed.splitlines() if "naive" in line][:2]
    naive = sum(float(row[row.index("naive") + 5].replace(",", "")) for row in rows)
    assert float(totals["false"].replace(",", "")) == pytest.approx(naive, abs=1)
    assert float(totals["false"].replace(",", "")) > 1.5 * float(totals["true"].replace(",", ""))


def test_what_bounds_a_phase_is_printed(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    offloaded = ["method=tslrec", "data=beauty", "llm=llama2_13b", "trainer=deepspeed_zero3_offload", *data]

    def bound(overrides: list[str]) -> str:
        (line,) = [each for each in printed_plan(overrides, capsys).splitlines() if "SFT, an epoch" in each]
        return line.split()[-1]

    assert bound(offloaded) == "PCIe"
    assert bound([*offloaded, "trainer=gpu"]) == "launches"
    own = "trainer.device={bf16_tflops:800,fp32_tflops:50,memory_gbs:3000}"
    assert bound([*offloaded, "trainer=gpu", own]) == "memory"
    assert bound([*offloaded, "trainer=gpu", "trainer.device={bf16_tflops:1,fp32_tflops:1}"]) == "arithmetic"
    assert bound(["method=tslrec", "data=beauty", "llm=smollm2_135m", "trainer=cpu", *data]) == "arithmetic"


def test_what_does_not_fit_a_device_is_told_with_what_would(
    data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["method=tslrec", "data=beauty", "llm=llama2_13b", *data]
    small = printed_plan([*chosen, "trainer=gpu", "trainer.device=rtx4090"], capsys)
    told = " ".join(small.split())
    assert "GiB do not fit one rtx4090 (24 GiB): llm.weight_bits=8, or llm.weight_bits=4, or trainer=deepspeed" in told
    assert "augmentation: " in told
    offloaded = printed_plan([*chosen, "trainer=deepspeed_zero3_offload", "trainer.device=rtx4090"], capsys)
    assert "SFT: " not in offloaded
    assert "augmentation: " in offloaded
    assert "do not fit" not in printed_plan([*chosen, "trainer=gpu"], capsys)


def test_an_unknown_device_is_refused_by_every_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "method=tslrec", "trainer.device=abacus"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: trainer.device=abacus: must be one of a100, cpu, h100")


@pytest.mark.parametrize(
    ("method", "where"),
    [("ci", "choose method=tslrec"), ("ablation_untuned_llm", "the augmentation of method=tslrec alone")],
)
def test_a_method_without_a_training_of_a_language_model_has_no_plan_of_its_own(
    method: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["plan", f"method={method}"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert where in line


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_cannot_be_read_is_one_line(
    name: str, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    random_llama({}).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    (folder / name).write_text("{")
    capsys.readouterr()
    local = ["llm.hub=null", "llm.wheel=null", f"llm.path={folder}"]
    with pytest.raises(SystemExit) as ended:
        main(["plan", "method=tslrec", "data=beauty", "llm=smollm2_135m", *local, *data])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "its tokenizer cannot be read" in line
