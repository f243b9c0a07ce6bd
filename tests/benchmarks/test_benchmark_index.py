"""`benchmarks/index.py` on a small catalogue."""

from __future__ import annotations

import pytest

import index as benchmark


def test_the_figures_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["--items", "3000", "--size", "8", "--requests", "20"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    figures = {words[0]: float(words[1]) for words in lines if words[0].startswith("index_")}
    assert set(figures) == {
        "index_build",
        "index_file",
        "index_load",
        *(f"index_{kind}_{what}" for kind in ("hnsw", "flat") for what in ("recall@10", "p50", "p99")),
    }
    assert figures["index_flat_recall@10"] == 1
    assert figures["index_hnsw_recall@10"] > 0.9
