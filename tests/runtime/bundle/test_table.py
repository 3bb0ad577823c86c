"""The table of stages: their order, the inputs of the graphs in a bundle, and tolerances."""

import math
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from stllm_edge.runtime import Bundle
from stllm_edge.runtime.bundle.manifest import CPU, ENCODERS, PORTABLE, TENSORRT
from stllm_edge.runtime.bundle.table import FUSED, STAGES, Tolerance


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


@pytest.mark.parametrize(
    ("tolerance", "rel_rms", "cosine", "holds"),
    [
        (Tolerance(rel_rms=1e-3), 1e-3, 0.5, True),
        (Tolerance(rel_rms=1e-3), 1.1e-3, 1.0, False),
        (Tolerance(cosine=0.999), 9.0, 0.999, True),
        (Tolerance(cosine=0.999), 0.0, 0.9989, False),
        (Tolerance(rel_rms=1e-3, cosine=0.9), 1e-4, 0.8, False),
        (Tolerance(rel_rms=1e-3), math.nan, 1.0, False),
        (Tolerance(cosine=0.999), 0.0, math.nan, False),
    ],
)
def test_a_tolerance_bounds_what_it_states(tolerance: Tolerance, rel_rms: float, cosine: float, holds: bool) -> None:
    assert tolerance.holds(rel_rms, cosine) is holds


def test_a_tolerance_says_its_bounds() -> None:
    assert str(Tolerance(rel_rms=5e-6)) == "rel-rms <= 5e-06"
    assert str(Tolerance(cosine=0.999)) == "cosine >= 0.999"


def test_graphs_of_either_precision_are_held_to_pytorch() -> None:
    for encoder in ENCODERS:
        assert STAGES[encoder].tolerances.keys() - {FUSED} == {"fp32", "fp16"}


def test_the_table_needs_the_standard_library_alone() -> None:
    """Every command reads it, so it has to be quick to import."""
    program = "import runpy, sys; runpy.run_path(sys.argv[1]); print({'numpy', 'onnx', 'click'} & set(sys.modules))"
    file = sys.modules["stllm_edge.runtime.bundle.table"].__file__
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
