"""Engines are loaded only where they fit: sidecars, profiles, and a reason for each refusal."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.export.tensorrt.profiles import Profile, Range
from stllm_edge.runtime import (
    BadBundle,
    BadInput,
    Bundle,
    MissingDependency,
    Options,
    Session,
    load_clip,
    load_scene,
)
from stllm_edge.runtime.bundle.manifest import ENCODERS
from stllm_edge.runtime.bundle.writer import BundleWriter
from stllm_edge.runtime.encoders.engines import Shapes, Sidecar, choose_profile, find_engines, graph_digest
from stllm_edge.runtime.encoders.gpu import Gpu
from stllm_edge.runtime.encoders.providers import place

VERSIONS = {"tensorrt": "10.3.0"}
Build = Callable[..., Bundle]


def shapes(most: int, least: int = 1) -> Shapes:
    """Voxels from the least to the most, and as many runs; up to three frames of four patches, 20 tokens."""
    usual = (least + most) // 2
    return {
        "voxel_feats": ((least, 3), (usual, 3), (most, 3)),
        "runs": ((least, 5), (usual, 5), (most, 5)),
        "pooled_features": ((4, 8), (8, 8), (12, 8)),
        "text_embeds": ((1, 8), (5, 8), (20, 8)),
    }


SIDECAR = Sidecar(
    target="orin",
    encoder="points",
    precision="fp32",
    backend="tensorrt",
    version="10.3.0",
    capability="8.7",
    graph="",
    maps="tables",
    profiles=[shapes(100), shapes(1000)],
    patches=4,
    flags={"strongly_typed": True},
    activation_bytes=2**20,
)


@pytest.fixture
def build(bundle: Path) -> Build:
    """Adds engines for Orin to the copied bundle; arguments change their sidecars."""

    def make(encoders: tuple[str, ...] = ENCODERS, **changes: Any) -> Bundle:
        held = Bundle(bundle)
        with BundleWriter.open(bundle) as writer:
            (writer.staging / "engines/orin").mkdir(parents=True)
            entry, files = {}, []
            for encoder in encoders:
                digest = graph_digest(held, encoder, "fp32")
                sidecar = replace(SIDECAR, **{"encoder": encoder, "graph": digest, **changes})
                entry[encoder] = {"file": f"engines/orin/{encoder}.engine", "sidecar": f"engines/orin/{encoder}.json"}
                (writer.staging / entry[encoder]["file"]).write_bytes(b"plan" * 100)
                (writer.staging / entry[encoder]["sidecar"]).write_text(sidecar.to_json())
                files += entry[encoder].values()
            writer.add("engines", "orin", {"fp32": entry}, files)
        return Bundle(bundle)

    return make


def refusal(bundle: Bundle, capability: str = "8.7", precision: str = "fp32", versions: Any = VERSIONS) -> str:
    with pytest.raises(BadBundle) as caught:
        find_engines(bundle, precision, capability, versions)
    assert f"; run stllm-export tensorrt --bundle {bundle.path} --precision {precision}" in str(caught.value)
    return str(caught.value)


def test_engines_that_fit_are_found(build: Build) -> None:
    bundle = build()
    found = find_engines(bundle, "fp32", "8.7", VERSIONS)
    assert tuple(found) == ENCODERS
    assert found["points"].file == bundle.path / "engines/orin/points.engine"
    assert found["points"].sidecar.profiles == SIDECAR.profiles


def test_a_bundle_without_engines_says_so(bundle: Path) -> None:
    assert "no engines for fp32 and compute capability 8.7: the bundle holds none" in refusal(Bundle(bundle))


def test_engines_for_another_device_are_refused(build: Build) -> None:
    message = refusal(build(), capability="8.6")
    assert "orin is for compute capability 8.7" in message
    assert "--force" not in message


def test_engines_of_another_precision_are_refused(build: Build) -> None:
    assert "orin has engines for fp32 only (--precision takes them)" in refusal(build(), precision="fp16")


def test_engines_of_another_version_are_refused(build: Build) -> None:
    bundle = build()
    assert "orin was built with tensorrt 10.3.0, here is 10.16.1" in refusal(bundle, versions={"tensorrt": "10.16.1"})
    assert "orin needs tensorrt 10.3.0, which is not installed" in refusal(bundle, versions={"tensorrt-rtx": "1.7"})


def test_a_graph_that_was_changed_after_its_engine_was_built_is_noticed(build: Build) -> None:
    assert "the graph of vision was changed after its engine was built" in refusal(build(graph="other"))


def test_engines_that_are_not_complete_are_refused(build: Build) -> None:
    assert "orin lacks an engine for aligner" in refusal(build(("vision", "points")))


def test_a_truncated_engine_is_refused(build: Build) -> None:
    bundle = build()
    file = bundle.path / "engines/orin/vision.engine"
    file.write_bytes(file.read_bytes()[:-1])
    message = refusal(bundle)
    assert "vision.engine: has 399 bytes, the manifest says 400; run stllm-export tensorrt" in message
    assert message.endswith(" --force")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        "[]",
        '{"profiles": {}}',
        SIDECAR.to_json().replace("version", "verse"),
        SIDECAR.to_json().replace('"patches": 4', '"patches": 0'),
        replace(SIDECAR, profiles=[]).to_json(),
    ],
    ids=["empty", "nested", "list", "fields missing", "field unknown", "no patches", "no profiles"],
)
def test_a_damaged_sidecar_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "points.json"
    file.write_text(content)
    with pytest.raises(BadBundle, match=r"points\.json: damaged .*; build the engines again"):
        Sidecar.read(file)


def test_a_sidecar_with_a_value_of_another_type_is_refused_wherever_it_stands(tmp_path: Path, damaged: Any) -> None:
    file, read = tmp_path / "points.json", set()
    for path, changed in damaged(json.loads(SIDECAR.to_json())):
        file.write_text(json.dumps(changed))
        with suppress(BadBundle):
            sidecar = Sidecar.read(file)
            assert choose_profile(sidecar, {"voxel_feats": (100, 3)}) == 0
            read.add(" ".join(map(str, path)))
    # free-form, or an input that the one above is not
    free = re.compile(r"flags.*|maps|profiles \d (runs|pooled_features|text_embeds) .*")
    assert [path for path in read if not free.fullmatch(path)] == []


def test_an_engine_that_takes_no_such_input_is_refused() -> None:
    for profiles in ([{"a": SIDECAR.profiles[0]["runs"]}], [*SIDECAR.profiles, {"a": SIDECAR.profiles[0]["runs"]}]):
        with pytest.raises(BadBundle, match="orin: the engine of points takes no runs; build it again with --force"):
            choose_profile(replace(SIDECAR, profiles=profiles), {"runs": (1, 5)})


@pytest.mark.parametrize(("rows", "index"), [(1, 0), (100, 0), (101, 1), (1000, 1)])
def test_the_smallest_profile_that_holds_the_inputs_is_taken(rows: int, index: int) -> None:
    assert choose_profile(SIDECAR, {"voxel_feats": (rows, 3), "runs": (rows, 5)}) == index


@pytest.mark.parametrize(
    ("beyond", "words", "option"),
    [
        ({"voxel_feats": (1001, 3)}, "1001 voxels, the engine for orin takes 1 to 1000", "voxels=MIN:OPT:MAX"),
        ({"pooled_features": (16, 8)}, "4 frames, the engine for orin takes 1 to 3", "frames=MIN:OPT:MAX"),
        ({"text_embeds": (21, 8)}, "21 tokens of the question, the engine for orin takes 1 to 20", "text=MIN:OPT:MAX"),
        (
            {"voxel_feats": (900, 3), "runs": (1002, 5)},
            "1002 rows of runs in the kernel maps, the engine for orin takes 1 to 1000",
            "voxels=MIN:OPT:MAX or with --profile-from such scenes",
        ),
    ],
)
def test_beyond_the_profiles_the_count_and_the_option_are_named(beyond: Any, words: str, option: str) -> None:
    expected = f"points: {words}; build it with a wider --profile {option}, or use --device cpu"
    with pytest.raises(BadInput, match=f"^{expected}$"):
        choose_profile(SIDECAR, beyond)


def test_between_buckets_that_do_not_touch_all_are_quoted() -> None:
    gapped = replace(SIDECAR, profiles=[shapes(100), shapes(200, 101), shapes(1000, 500)])
    with pytest.raises(BadInput, match="300 voxels, the engine for orin takes 1 to 200 or 500 to 1000;"):
        choose_profile(gapped, {"voxel_feats": (300, 3)})


def test_where_no_bucket_takes_all_inputs_the_largest_is_quoted() -> None:
    gapped = replace(SIDECAR, profiles=[shapes(100), shapes(1000, 101)])
    with pytest.raises(BadInput, match="90 voxels, the engine for orin takes 101 to 1000;"):
        choose_profile(gapped, {"voxel_feats": (90, 3), "runs": (150, 5)})


def test_engines_stay_when_other_parts_are_added(build: Build, stllm: Any, tiny_checkpoint: Path) -> None:
    bundle = build()
    added = ["--ckpt", tiny_checkpoint, "--out", bundle.path, "--quant", "F16"]
    assert stllm("export", "gguf", *added).exit_code == 0
    assert tuple(find_engines(Bundle(bundle.path), "fp32", "8.7", VERSIONS)) == ENCODERS


def test_engines_for_another_device_are_passed_over_with_one_line(build: Build, monkeypatch: Any, caplog: Any) -> None:
    bundle = build()
    monkeypatch.setattr("stllm_edge.runtime.encoders.providers.find_gpu", lambda: Gpu("RTX 3060", "8.6", 2**33, False))
    monkeypatch.setattr("stllm_edge.runtime.encoders.tensorrt.installed_versions", lambda: VERSIONS)
    with caplog.at_level("WARNING", "stllm_edge"):
        assert place("auto", False, bundle, "fp32").name == "the CPU"
    (record,) = caplog.records
    reason = "no engines for fp32 and compute capability 8.6: orin is for compute capability 8.7"
    assert f"encoders run on the CPU instead: {reason}; run stllm-export tensorrt --bundle" in record.getMessage()
    with pytest.raises(BadBundle, match=f"--device auto --strict: {reason}"):
        place("auto", True, bundle, "fp32")


def test_a_gpu_without_tensorrt_is_told_what_to_install(build: Build, monkeypatch: Any) -> None:
    monkeypatch.setattr("stllm_edge.runtime.encoders.providers.find_gpu", lambda: Gpu("Orin", "8.7", 2**33, True))
    monkeypatch.setattr("stllm_edge.runtime.encoders.tensorrt.installed_versions", dict)
    with pytest.raises(MissingDependency, match=r"TensorRT is not installed; on Jetson .* python3-libnvinfer"):
        place("tensorrt", True, build(), "fp32")


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose GPU and TensorRT fit the engines."""
    monkeypatch.setattr("stllm_edge.runtime.encoders.providers.find_gpu", lambda: Gpu("Orin", "8.7", 2**33, True))
    monkeypatch.setattr("stllm_edge.runtime.encoders.tensorrt.installed_versions", lambda: VERSIONS)
    monkeypatch.setattr("stllm_edge.runtime.llm.placement.offloads", lambda: True)


@pytest.mark.usefixtures("orin")
def test_a_session_with_engines_reads_no_graphs_and_has_the_same_digest(build: Build) -> None:
    bundle = build()
    session = Session(bundle, Options(precision="fp32"))
    assert session.setup.placement.name == "TensorRT engines, Orin"
    assert set(session.setup.files) == {*(f"engines/orin/{name}.engine" for name in ENCODERS), "llm/Q4_K_M.gguf"}
    assert session.digest == Session(bundle, Options(precision="fp32", device="cpu")).digest


@pytest.mark.usefixtures("orin")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"voxels": Range(1, 10, 20)}, "points: 60 voxels, the engine for orin takes 1 to 20"),
        (
            {"rows": (Range(1, 2, 3),) * 5},
            r"points: \d+ rows of runs in the kernel maps, .* 1 to 3;",
        ),
        ({"frames": Range(1, 1, 1)}, "aligner: 2 frames, the engine for orin takes 1 to 1"),
    ],
    ids=["voxels", "kernel maps", "frames"],
)
def test_what_is_beyond_the_profiles_is_refused_before_anything_runs(
    changes: dict[str, Any], words: str, build: Build, inputs: Any, tiny_bundle: Path
) -> None:
    geometry = Bundle(tiny_bundle).geometry
    sizes: dict[str, Any] = {"batch": Range(1, 4, 4), "frames": Range(1, 2, 4), "text": Range(1, 64, 512)}
    sizes |= {"voxels": Range(1, 50, 100), "rows": (Range(1, 100, 500),) * 5, **changes}
    profile = {
        name: shape for encoder in ENCODERS for name, shape in Profile(**sizes).shapes(encoder, geometry).items()
    }
    bundle = build(profiles=[profile], patches=geometry.vision.grid**2)
    with pytest.raises(BadInput, match=words):
        Session(bundle, Options(precision="fp32")).look(load_scene(inputs.scene), load_clip(inputs.video), frames=2)
