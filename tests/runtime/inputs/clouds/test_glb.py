"""GLB scenes: where nodes put geometries, which of them have colours, and how they are stored."""

import base64
import json
import logging
import sys
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.errors import MissingDependency

HALF_TURN = [0, 0, 1, 0]


@pytest.fixture
def parts(cloud) -> list[dict[str, np.ndarray]]:
    """The cloud in two geometries."""
    return [{"POSITION": cloud.points[part], "COLOR_0": cloud.colours[part]} for part in (slice(25), slice(25, None))]


def node(**values: Any) -> Any:
    return lambda tree: tree["nodes"][0].update(values)


@pytest.mark.parametrize("mode", [0, 4, 5])
def test_all_geometries_are_read(mode: int, parts, cloud, write, read) -> None:
    def change(tree: dict[str, Any]) -> None:
        for mesh in tree["meshes"]:
            mesh["primitives"][0]["mode"] = mode

    known = read(write.glb(*parts, change=change), ".glb")
    assert np.array_equal(known.points, cloud.points)
    assert np.array_equal(known.colours, cloud.colours)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({"translation": [3, 2, 1]}, lambda p: p + np.array([3, 2, 1])),
        ({"scale": [2, 1, 0.5]}, lambda p: p * [2, 1, 0.5]),
        ({"rotation": HALF_TURN}, lambda p: p * [-1, -1, 1]),
        (
            {"matrix": [0, 2, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 5, 6, 7, 1]},
            lambda p: p[:, [1, 0, 2]] * [-1, 2, 1] + [5, 6, 7],
        ),
        ({"translation": [1, 0, 0], "rotation": HALF_TURN, "scale": [2, 2, 2]}, lambda p: p * [-2, -2, 2] + [1, 0, 0]),
    ],
)
def test_nodes_put_geometries_in_their_place(place: dict[str, Any], expected, cloud, write, read) -> None:
    attributes = {"POSITION": cloud.points, "COLOR_0": cloud.colours}
    content = write.glb(attributes, change=node(**place))
    assert np.allclose(read(content, ".glb").points, expected(cloud.points), atol=1e-5)
    assert np.array_equal(read(content, ".glb", glb="first").points, cloud.points)


def test_nodes_move_with_those_above(parts, cloud, write, read) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["nodes"].append({"translation": [1, 2, 3], "rotation": HALF_TURN, "children": [0, 1]})
        tree["nodes"][1]["translation"] = [10, 0, 0]
        tree["scenes"] = [{"nodes": []}, {"nodes": [2]}]
        tree["scene"] = 1

    expected = cloud.points + np.where(np.arange(40) < 25, 0, 10)[:, None] * [1, 0, 0]
    known = read(write.glb(*parts, change=change), ".glb")
    assert np.allclose(known.points, expected * [-1, -1, 1] + [1, 2, 3], atol=1e-5)


def test_map_coordinates_of_a_node_are_not_rounded(cloud, write, read) -> None:
    content = write.glb(
        {"POSITION": cloud.points, "COLOR_0": cloud.colours}, change=node(translation=[691_740, 5_334_840, 0])
    )
    known = read(content, ".glb")
    assert np.abs(known.points + known.offset - cloud.points - [691_740, 5_334_840, 0]).max() < 1e-5


def test_the_first_as_the_authors_read_it(parts, cloud, write, read, caplog) -> None:
    content = write.glb(*parts, change=node(translation=[9, 9, 9]))
    with caplog.at_level(logging.INFO, "stllm_edge"):
        known = read(content, ".glb", glb="first")
    assert np.array_equal(known.points, cloud.points[:25])
    assert "the first of 2 geometries is read" in caplog.text
    with pytest.raises(BadInput, match="--glb second: unknown; known are all, first"):
        read(content, ".glb", glb="second")


@pytest.mark.parametrize("glb", ["all", "first"])
def test_one_geometry_is_read_without_a_word(glb: str, cloud, write, read, caplog) -> None:
    with caplog.at_level(logging.INFO, "stllm_edge"):
        known = read(write.glb({"POSITION": cloud.points, "COLOR_0": cloud.colours}), ".glb", glb=glb)
    assert np.array_equal(known.points, cloud.points)
    assert not caplog.text


@pytest.mark.parametrize(
    "stored", [lambda c: c, lambda c: c.astype(np.uint16) * 257, lambda c: (c / 255).astype(np.float32)]
)
@pytest.mark.parametrize("opacity", [False, True])
def test_types_of_colours(stored, opacity: bool, cloud, write, read) -> None:
    colours = np.concatenate([cloud.colours, cloud.colours[:, :1]], axis=1) if opacity else cloud.colours
    known = read(write.glb({"POSITION": cloud.points, "COLOR_0": np.ascontiguousarray(stored(colours))}), ".glb")
    assert np.array_equal(known.colours, cloud.colours)


def test_quantised_positions(cloud, write, read) -> None:
    stored = np.round(cloud.points / 8 * 32767).astype(np.int16)

    def change(tree: dict[str, Any]) -> None:
        tree["accessors"][0]["normalized"] = True
        tree["extensionsRequired"] = ["KHR_mesh_quantization"]
        tree["nodes"][0]["scale"] = [8, 8, 8]

    known = read(write.glb({"POSITION": stored, "COLOR_0": cloud.colours}, change=change), ".glb")
    assert np.allclose(known.points, cloud.points, atol=1e-3)


@pytest.mark.parametrize("beside", [True, False])
def test_gltf_with_its_data_beside_or_inside(beside: bool, cloud, write, read, tmp_path) -> None:
    content = write.glb({"POSITION": cloud.points, "COLOR_0": cloud.colours})
    length = int.from_bytes(content[12:16], "little")
    tree, binary = json.loads(content[20 : 20 + length]), content[28 + length :]
    (tmp_path / "the data.bin").write_bytes(binary)
    inside = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    tree["buffers"][0]["uri"] = "the%20data.bin" if beside else inside
    assert np.array_equal(read(json.dumps(tree).encode(), ".gltf").points, cloud.points)
    for elsewhere in ("../other.bin", "/etc/passwd", "https://example.org/a.bin"):
        tree["buffers"][0]["uri"] = elsewhere
        with pytest.raises(BadInput, match="its data is elsewhere"):
            read(json.dumps(tree).encode(), ".gltf")


def test_geometries_without_colours_are_left_out_and_told(parts, cloud, write, read, caplog) -> None:
    def change(tree: dict[str, Any]) -> None:
        lines, plain = ({"primitives": [dict(tree["meshes"][1]["primitives"][0])]} for _ in range(2))
        lines["primitives"][0]["mode"] = 1
        plain["primitives"][0]["attributes"] = {"POSITION": 2}
        tree["meshes"] += [lines, plain]
        tree["nodes"] += [{"mesh": 2}, {"mesh": 3}]
        tree["scenes"][0]["nodes"] += [2, 3]

    with caplog.at_level(logging.WARNING, "stllm_edge"):
        assert np.array_equal(read(write.glb(*parts, change=change), ".glb").points, cloud.points)
    assert "geometries are left out: 1 of lines, 1 without a colour a vertex" in caplog.text


def textured(tree: dict[str, Any]) -> None:
    tree["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    tree["meshes"][0]["primitives"][0]["material"] = 0


@pytest.mark.parametrize("glb", ["all", "first"])
def test_a_texture_is_told(glb: str, cloud, write, read) -> None:
    content = write.glb({"POSITION": cloud.points, "TEXCOORD_0": cloud.points[:, :2].copy()}, change=textured)
    with pytest.raises(
        BadInput, match=r"no colours; .*coloured by a texture, which is not read; give it a colour a vertex"
    ):
        read(content, ".glb", glb=glb)


def draco(tree: dict[str, Any]) -> None:
    tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    extension = {"bufferView": 0, "attributes": {"POSITION": 0, "COLOR_0": 1}}
    tree["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": extension}
    for accessor in tree["accessors"]:
        del accessor["bufferView"]


def test_draco_without_its_library_names_the_extra(cloud, write, read, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(MissingDependency, match=r"compressed with Draco.*pip install 'stllm-edge\[formats\]'"):
        read(write.glb({"POSITION": cloud.points, "COLOR_0": cloud.colours}, change=draco), ".glb")


def test_draco(cloud, write, read) -> None:
    library = pytest.importorskip("DracoPy")
    packed = library.encode(cloud.points, colors=cloud.colours, quantization_bits=16, preserve_order=True)
    places = {"POSITION": 0, "COLOR_0": 1}

    def change(tree: dict[str, Any]) -> None:
        draco(tree)
        tree["bufferViews"] = [{"buffer": 0, "byteOffset": 0, "byteLength": len(packed)}]
        tree["meshes"][0]["primitives"][0]["extensions"]["KHR_draco_mesh_compression"]["attributes"] = places
        tree["buffers"][0] = {"uri": "data:;base64," + base64.b64encode(packed).decode()}

    known = read(write.glb({"POSITION": cloud.points, "COLOR_0": cloud.colours}, change=change), ".glb")
    order, theirs = (np.lexsort(points.T.round(2)) for points in (cloud.points, known.points))
    assert np.allclose(known.points[theirs], cloud.points[order], atol=1e-3)
    assert np.array_equal(known.colours[theirs], cloud.colours[order])
    with pytest.raises(BadInput, match="compressed with Draco, and damaged"):
        read(write.glb({"POSITION": cloud.points, "COLOR_0": cloud.colours}, change=draco), ".glb")


def cycle(tree: dict[str, Any]) -> None:
    tree["nodes"][0]["children"] = [0]


def repeated(tree: dict[str, Any]) -> None:
    tree["nodes"] = [{"mesh": 0}] * 1000
    tree["scenes"][0]["nodes"] = list(range(1000))


def meshopt(tree: dict[str, Any]) -> None:
    tree["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {"buffer": 0}}


BAD = {
    "a cycle": (cycle, "has several parents"),
    "a mesh too often": (repeated, "its nodes repeat its meshes"),
    "meshopt": (meshopt, "compressed by meshopt .*, which is not read; export it without"),
    "another extension": (lambda tree: tree.update(extensionsRequired=["X_y"]), "needs the extension X_y"),
    "instances": (node(extensions={"EXT_mesh_gpu_instancing": {}}), "EXT_mesh_gpu_instancing, which is not read"),
    "a placeholder": (lambda tree: tree["accessors"][0].pop("bufferView"), r"accessors\[0\] has no data"),
    "more than there is": (lambda tree: tree["accessors"][0].update(count=10**12), "reaches beyond its data"),
    "a negative count": (lambda tree: tree["accessors"][0].update(count=-1), "count is -1"),
    "no such mesh": (node(mesh=7), r"it has no meshes\[7\]"),
    "a matrix of words": (node(matrix=["a"] * 16), "a node's matrix is"),
    "sparse": (lambda tree: tree["accessors"][0].update(sparse={}), "sparse accessors, which are not read"),
    "nothing": (lambda tree: tree.update(meshes=[], nodes=[]), "there are none"),
}


@pytest.mark.parametrize(("change", "words"), BAD.values(), ids=BAD)
def test_bad_files_are_one_line(change, words: str, cloud, write, read) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        read(write.glb({"POSITION": cloud.points, "COLOR_0": cloud.colours}, change=change), ".glb")
    assert "\n" not in str(caught.value)


def test_it_reads_what_trimesh_reads(cloud, read) -> None:
    trimesh = pytest.importorskip("trimesh")
    colours = np.concatenate([cloud.colours, cloud.colours[:, :1]], axis=1)
    mesh = trimesh.Trimesh(
        np.tile(cloud.points, (3, 1)),
        np.arange(120).reshape(40, 3),
        vertex_colors=np.tile(colours, (3, 1)),
        process=False,
    )
    content = trimesh.Scene([trimesh.PointCloud(cloud.points, colors=colours), mesh]).export(file_type="glb")
    known = read(content, ".glb")
    assert np.array_equal(known.points, np.tile(cloud.points, (4, 1)))
    assert np.array_equal(known.colours, np.tile(cloud.colours, (4, 1)))
