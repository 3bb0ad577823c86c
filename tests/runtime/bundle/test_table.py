"""The table of stages: their order, the inputs of the graphs in a bundle, and tolerances."""

import math
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from stllm_edge.export.gguf.types import PLAIN, QUANTISED
from stllm_edge.runtime import Bundle
from stllm_edge.runtime.bundle.manifest import CPU, ENCODERS, PORTABLE, TENSORRT
from stllm_edge.runtime.bundle.precisions import FORMATS as NUMBERS
from stllm_edge.runtime.bundle.table import FUSED, GRAPH, LOSSES, STAGES, Tolerance


def test_stages_stand_in_the_order_of_the_way() -> None:
    assert " ".join(STAGES) == "video voxels maps rays vision points aligner prefill decode"
    assert [name for name, stage in STAGES.items() if stage.inputs] == list(ENCODERS)


@pytest.mark.parametrize("provider", [PORTABLE, CPU, TENSORRT])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_graphs_have_the_inputs_and_the_output_of_the_table(encoder: str, provider: str, tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    for precision in ("fp32", "fp16"):
        entry = bundle.graph(encoder, precision, provider)
        graph = onnx.load(str(bundle.file(entry.file)), load_external_data=False).graph
        assert tuple(value.name for value in graph.input) == STAGES[encoder].inputs[entry.maps]
        assert [value.name for value in graph.output] == [STAGES[encoder].output]


LIMITS = Tolerance(rel_rms=1e-2, cosine=0.999, norm=1e-3)


@pytest.mark.parametrize(
    ("rel_rms", "cosine", "norm", "holds"),
    [
        (1e-2, 0.999, 1.001, True),
        (1e-2, 0.999, 0.999001, True),
        (1.1e-2, 1.0, 1.0, False),
        (0.0, 0.9989, 1.0, False),
        (0.0, 1.0, 1.0011, False),
        (0.0, 1.0, 0.9989, False),
        (math.nan, 1.0, 1.0, False),
        (0.0, math.nan, 1.0, False),
        (0.0, 1.0, math.nan, False),
    ],
)
def test_a_tolerance_limits_distance_angle_and_size(rel_rms: float, cosine: float, norm: float, holds: bool) -> None:
    assert LIMITS.holds(rel_rms, cosine, norm) is holds


def test_limits_around_a_distance_let_a_difference_without_direction_pass() -> None:
    for distance in (1e-6, 1e-3, 0.1, 0.25):
        limits = Tolerance.around(distance)
        assert limits.holds(distance, 1 / math.sqrt(1 + distance**2), math.sqrt(1 + distance**2))
        assert not limits.holds(distance, 1.0, 1 + distance)


def test_a_tolerance_says_its_bounds() -> None:
    assert str(LIMITS) == "rel-rms <= 0.01, 1 - cosine <= 0.001, norm 1 ± 0.001"


def test_all_that_is_compared_has_limits() -> None:
    assert LOSSES.keys() == set(QUANTISED)
    assert STAGES["prefill"].tolerances.keys() == {*PLAIN, GRAPH}


def test_graphs_of_every_format_are_held_to_pytorch() -> None:
    for encoder in ENCODERS:
        assert STAGES[encoder].tolerances.keys() - {FUSED} == set(NUMBERS)


def test_the_table_needs_the_standard_library_alone() -> None:
    """Every command reads it, so it has to be quick to import."""
    program = "import runpy, sys; runpy.run_path(sys.argv[1]); print({'numpy', 'onnx', 'click'} & set(sys.modules))"
    file = sys.modules["stllm_edge.runtime.bundle.table"].__file__
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
