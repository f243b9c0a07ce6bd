"""What a method's stages need, read from its configuration."""

from __future__ import annotations

import pytest

from tslrec.stages.method_stages import fusion_inputs
from tslrec.system.errors import UserError


def test_a_fusion_asks_for_arrays_by_its_parameters() -> None:
    assert fusion_inputs({"_target_": "tslrec.models.fusions.gate.GatedFusion"}) == ["knowledge_IH"]
    assert fusion_inputs({"_target_": "tslrec.models.fusions.category.CategoryFusion"}) == ["clusters_I"]


def test_a_fusion_that_was_removed_is_refused_in_one_line() -> None:
    target = "tslrec.models.fusions.attic.AtticFusion"
    with pytest.raises(UserError) as caught:
        fusion_inputs({"_target_": target})
    line = str(caught.value)
    assert line.startswith(f"fusion._target_={target}: cannot be imported (No module named")
    assert "\n" not in line
