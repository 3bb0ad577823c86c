"""Profiles: from options, from measured scenes, and what they hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from stllm_edge.benchmarks.world.rooms import room
from stllm_edge.export.tensorrt.profiles import Profile, Range, plan_profiles
from stllm_edge.runtime import BadInput, Bundle
from stllm_edge.runtime.bundle.manifest import ENCODERS
from stllm_edge.runtime.host.maps import KernelMaps


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


def holds(profile: Profile, bundle: Bundle, coords: np.ndarray) -> bool:
    """Whether all inputs of the point encoder for these voxels lie within a profile."""
    shapes = profile.shapes("points", bundle.geometry)
    inputs = {"voxel_feats": np.zeros((len(coords), 3)), **KernelMaps.build(coords, "tables").inputs()}
    assert inputs.keys() == shapes.keys()
    return all(
        all(low <= size <= high for low, size, high in zip(shapes[name][0], array.shape, shapes[name][2], strict=True))
        for name, array in inputs.items()
    )


def test_defaults_come_from_the_bundle(bundle: Bundle) -> None:
    small, large = plan_profiles(bundle, [], None)
    assert small.frames == large.frames == Range(1, 32, 32)
    assert small.voxels.most < large.voxels.most
    assert str(small) == "batch 1:4:4, frames 1:32:32, voxels 1:10000:16000, text 1:64:512"


def test_shapes_are_those_of_the_graphs(bundle: Bundle) -> None:
    import onnx

    (profile,) = plan_profiles(bundle, ["voxels=1:10:20"], None)
    for encoder in ENCODERS:
        graph = onnx.load(bundle.file(bundle.graph(encoder, "fp32", "tensorrt").file), load_external_data=False).graph
        fixed = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim][1:] for value in graph.input}
        shapes = profile.shapes(encoder, bundle.geometry)
        assert {name: list(bounds[0][1:]) for name, bounds in shapes.items()} == fixed
        assert all(least <= usual <= most for least, usual, most in shapes.values())


@pytest.mark.parametrize("voxels", [4_000, 16_000])
def test_a_bucket_holds_scanned_rooms_of_its_size(voxels: int, bundle: Bundle) -> None:
    (profile,) = plan_profiles(bundle, [f"voxels=1:{voxels}:{voxels}"], None)
    assert holds(profile, bundle, room(voxels))
    assert not holds(profile, bundle, room(voxels + 1))


@pytest.mark.parametrize("coords", [[[0, 0, 0]], [[0, 0, 0], [50, 3, 70]]], ids=["one voxel", "two far apart"])
def test_every_bucket_begins_at_one_voxel(coords: list[list[int]], bundle: Bundle) -> None:
    for profile in plan_profiles(bundle, [], None):
        assert holds(profile, bundle, np.array(coords, np.int32))


def test_buckets_stand_in_order_of_size(bundle: Bundle) -> None:
    profiles = plan_profiles(bundle, ["voxels=1:2000:3000", "voxels=1:100:200", "frames=1:4:8"], None)
    assert [profile.voxels.most for profile in profiles] == [200, 3000]
    assert {str(profile.frames) for profile in profiles} == {"1:4:8"}


def test_measured_scenes_make_a_bucket_with_headroom(bundle: Bundle, tmp_path: Path) -> None:
    sizes = (300, 500, 1000)
    for size in sizes:
        points = (room(size) + 0.5) * 0.06
        np.save(tmp_path / f"{size}.npy", np.concatenate([points, np.full((size, 3), 9)], axis=1).astype(np.float32))
    entries = [{"id": size, "pointcloud": f"{size}.npy"} for size in (*sizes, 500)]
    (tmp_path / "rea.json").write_text(json.dumps(entries))
    (profile,) = plan_profiles(bundle, [], tmp_path / "rea.json")
    assert str(profile.voxels) == "1:500:1250"
    assert all(holds(profile, bundle, room(size)) for size in sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["voxels=1:500:400"], r"--profile voxels=1:500:400: expected voxels=MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX"),
        (["voxels=0:5:9"], "with 1 <= MIN <= OPT <= MAX"),
        (["frames=8"], "--profile frames=8: expected frames=MIN:OPT:MAX"),
        (["text=a:b:c"], "--profile text=a:b:c: expected text=MIN:OPT:MAX"),
        (["voxels=1:2:99999999999"], "1 <= MIN <= OPT <= MAX <= 10000000"),
        (["batch=4:4:4"], "--profile batch=4:4:4: MIN has to be 1; the last frames of a clip may be fewer"),
        (["batch=1:1:9000000"], r"--profile batch=1:1:9000000: MAX is \d+ at most for this model, 2 GB a tensor"),
        (["voxels=1:2:3", "voxels=1:2:9999999"], "--profile voxels=1:2:9999999: MAX is"),
        (["points=1:2:3"], "expected NAME=MIN:OPT:MAX with a NAME of batch, frames, voxels, text"),
        (["frames=1:2:3", "frames=1:2:4"], "--profile frames: given 2 times; only voxels may repeat"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: list[str], message: str, bundle: Bundle) -> None:
    with pytest.raises(BadInput, match=message):
        plan_profiles(bundle, options, None)


def test_a_bucket_that_is_given_twice_is_one(bundle: Bundle) -> None:
    assert len(plan_profiles(bundle, ["voxels=1:2:3", "voxels=1:2:3"], None)) == 1


def test_a_cloud_that_cannot_be_read_is_one_line(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "rea.json").write_text(json.dumps([{"pointcloud": "p" * 5000 + ".npy"}]))
    with pytest.raises(BadInput, match="a pointcloud cannot be read") as caught:
        plan_profiles(bundle, [], tmp_path / "rea.json")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"id": 1}]', '[{"pointcloud": 3}]', "[" * 100_000])
def test_a_file_that_is_not_rea_is_refused(content: str, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "rea.json").write_text(content)
    with pytest.raises(BadInput, match=r"--profile-from .*rea\.json: (not JSON|expected a list of entries|entry 0 )"):
        plan_profiles(bundle, [], tmp_path / "rea.json")


def test_a_file_and_a_voxel_option_contradict_each_other(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="both say how many voxels"):
        plan_profiles(bundle, ["voxels=1:2:3"], tmp_path / "rea.json")
