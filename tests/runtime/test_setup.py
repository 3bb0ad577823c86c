"""What runs, once all is decided."""

from pathlib import Path

import pytest
from stllm_edge.runtime import BadBundle, Bundle
from stllm_edge.runtime.bundle.manifest import CPU, ENCODERS, PORTABLE, TENSORRT
from stllm_edge.runtime.setup import Setup


@pytest.mark.parametrize("provider", [CPU, PORTABLE, TENSORRT])
def test_files_are_those_of_the_provider_and_the_language_model(tiny_bundle: Path, provider: str) -> None:
    bundle = Bundle(tiny_bundle)
    setup = Setup(bundle, "fp32", "Q8_0", provider=provider)
    graphs = [bundle.graph(name, "fp32", provider) for name in ENCODERS]
    assert setup.files == [*(name for graph in graphs for name in (graph.file, graph.weights)), "llm/Q8_0.gguf"]
    assert [setup.encoder_file(name) for name in ENCODERS] == [tiny_bundle / graph.file for graph in graphs]
    assert setup.map_format == ("tables" if provider == TENSORRT else "slabs")
    assert setup.frames_at_once == 1


@pytest.mark.parametrize(("precision", "quant"), [("int4", "F32"), ("fp32", "Q2_K")])
def test_what_the_bundle_lacks_is_refused_when_it_is_needed(tiny_bundle: Path, precision: str, quant: str) -> None:
    setup = Setup(Bundle(tiny_bundle), precision, quant)
    with pytest.raises(BadBundle, match="does not hold it"):
        _ = setup.files


def test_the_language_model_is_loaded_as_the_setup_says(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    with Setup(bundle, "fp32", "F32", threads=1, kv="f32", repack=False).load_llm(256) as model:
        model.decode_tokens([1, 2, 3])
        assert model.logits().shape == (bundle.geometry.llm.vocabulary,)
