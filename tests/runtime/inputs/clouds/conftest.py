"""A small cloud, and what writes it in any format."""

import base64
import importlib.util
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest


class Cloud(NamedTuple):
    """Points [P, 3] float32 and colours [P, 3] uint8."""

    points: np.ndarray
    colours: np.ndarray


@pytest.fixture(scope="session")
def cloud() -> Cloud:
    """Forty points of a room."""
    generator = np.random.default_rng(0)
    points = generator.uniform((0, 0, 0), (5, 6, 2.4), (40, 3)).astype(np.float32)
    return Cloud(points, generator.integers(0, 256, (40, 3)).astype(np.uint8))


NAMES = {"u1": "uchar", "u2": "ushort", "i4": "int", "f4": "float", "f8": "double"}


def ply_bytes(columns: dict[str, np.ndarray], *, form: str = "binary_little_endian", extra: str = "") -> bytes:
    """A PLY file with these columns, by name; `extra` are further lines of its header."""
    count = len(next(iter(columns.values())))
    properties = [f"property {NAMES[column.dtype.str[1:]]} {name}" for name, column in columns.items()]
    lines = ["ply", f"format {form} 1.0", *extra.splitlines(), f"element vertex {count}", *properties, "end_header", ""]
    header = "\n".join(lines).encode()
    if form == "ascii":
        rows = zip(*columns.values(), strict=True)
        return header + "".join(" ".join(repr(number.item()) for number in row) + "\n" for row in rows).encode()
    order = "<" if "little" in form else ">"
    rows = np.empty(count, [(name, order + column.dtype.str[1:]) for name, column in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    return header + rows.tobytes()


def named(points: np.ndarray, colours: np.ndarray, names: str = "red green blue") -> dict[str, np.ndarray]:
    """Columns x, y, z and colours of these names."""
    return {**dict(zip("xyz", points.T, strict=True)), **dict(zip(names.split(), colours.T, strict=True))}


COMPONENTS = {"|u1": 5121, "<u2": 5123, "<f4": 5126, "<i2": 5122}


def glb_bytes(
    *geometries: dict[str, np.ndarray], change: Callable[[dict[str, Any]], object] = lambda tree: None
) -> bytes:
    """A GLB file whose geometries have these attributes, a mesh and a node each; `change` edits its JSON."""
    binary, views, accessors, meshes = bytearray(), [], [], []
    for attributes in geometries:
        indices = {}
        for name, values in attributes.items():
            kind = COMPONENTS[values.dtype.str]
            views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": values.nbytes})
            shape = {"bufferView": len(views) - 1, "componentType": kind, "count": len(values)}
            accessors.append({**shape, "type": f"VEC{values.shape[1]}", "normalized": name == "COLOR_0"})
            indices[name] = len(accessors) - 1
            binary += values.tobytes() + b"\0" * (-values.nbytes % 4)
        meshes.append({"primitives": [{"attributes": indices, "mode": 0}]})
    tree: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(meshes)))}],
        "nodes": [{"mesh": place} for place in range(len(meshes))],
        "meshes": meshes,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    change(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    size = 28 + len(text) + len(binary)
    head = struct.pack("<4sII", b"glTF", 2, size) + struct.pack("<I4s", len(text), b"JSON") + text
    return head + struct.pack("<I4s", len(binary), b"BIN\0") + bytes(binary)


def gltf_bytes(glb: bytes) -> bytes:
    """The same file with its data inside its JSON."""
    length = int.from_bytes(glb[12:16], "little")
    tree = json.loads(glb[20 : 20 + length])
    inside = base64.b64encode(glb[28 + length :]).decode()
    tree["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{inside}"
    return json.dumps(tree).encode()


def pack_lzf(content: bytes) -> bytes:
    """LZF without a search: literals, and runs of one byte as a copy from the byte before."""
    packed, place = bytearray(), 0
    while place < len(content):
        rest = content[place : place + 259]
        run = len(rest) - len(rest.lstrip(rest[:1]))
        if run >= 4:
            length = run - 3
            packed += bytes([0, content[place]])
            packed += bytes([(length << 5), 0]) if length < 7 else bytes([7 << 5, length - 7, 0])
            place += run
            continue
        literal = content[place : place + 8]
        packed += bytes([len(literal) - 1]) + literal
        place += len(literal)
    return bytes(packed)


def pcd_bytes(columns: dict[str, np.ndarray], *, data: str = "binary", viewpoint: str = "0 0 0 1 0 0 0") -> bytes:
    """A PCD file with these columns, by name."""
    count = len(next(iter(columns.values())))
    kinds = [column.dtype.str for column in columns.values()]
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        "FIELDS " + " ".join(columns),
        "SIZE " + " ".join(kind[2] for kind in kinds),
        "TYPE " + " ".join(kind[1].upper() for kind in kinds),
        "COUNT" + " 1" * len(columns),
        f"WIDTH {count}",
        "HEIGHT 1",
        f"VIEWPOINT {viewpoint}",
        f"POINTS {count}",
        f"DATA {data}",
        "",
    ]
    header = "\n".join(lines).encode()
    if data == "ascii":
        rows = zip(*columns.values(), strict=True)
        return header + "".join(" ".join(repr(number.item()) for number in row) + "\n" for row in rows).encode()
    if data == "binary_compressed":
        content = b"".join(column.tobytes() for column in columns.values())
        packed = pack_lzf(content)
        return header + struct.pack("<2I", len(packed), len(content)) + packed
    rows = np.empty(count, [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    return header + rows.tobytes()


def packed_colours(colours: np.ndarray, kind: str = "f4") -> np.ndarray:
    """Colours [P, 3] uint8 in a number each, as PCL packs them."""
    red, green, blue = colours.T.astype(np.uint32)
    bits = red << 16 | green << 8 | blue
    return bits.view(np.float32) if kind == "f4" else bits


class Writers(NamedTuple):
    ply: Callable[..., bytes]
    glb: Callable[..., bytes]
    pcd: Callable[..., bytes]
    named: Callable[..., dict[str, np.ndarray]]
    packed: Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def write() -> Writers:
    """Bytes of files of each format."""
    return Writers(ply_bytes, glb_bytes, pcd_bytes, named, packed_colours)


def saved(save: Callable[..., object], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def las(points: np.ndarray, colours: np.ndarray, compressed: bool, step: float = 1e-4) -> bytes:
    """Of a file whose coordinates are so many metres apart."""
    import laspy

    header = laspy.LasHeader(point_format=2, version="1.2")
    header.scales = [step] * 3
    written = laspy.LasData(header)
    written.xyz = points.astype(np.float64)
    written.red, written.green, written.blue = (colours.astype(np.uint16) * 257).T
    return saved(lambda buffer: written.write(buffer, do_compress=compressed))


def draco(points: np.ndarray, colours: np.ndarray, write: Any) -> bytes:
    """A GLB whose geometry is compressed."""
    import DracoPy

    packed = DracoPy.encode(points, colors=colours, quantization_bits=20, preserve_order=True)
    extension = {"bufferView": 2, "attributes": {"POSITION": 0, "COLOR_0": 1}}

    def change(tree: dict[str, Any]) -> None:
        for accessor in tree["accessors"][:2]:
            del accessor["bufferView"]
        tree["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": extension}

    blob = np.frombuffer(packed + bytes(-len(packed) % 4), np.uint8).reshape(-1, 4)
    return bytes(write.glb({"POSITION": points, "COLOR_0": colours, "_PACKED": blob}, change=change))


@pytest.fixture(scope="session")
def files(cloud: Cloud, write: Writers) -> dict[str, bytes]:
    """The cloud in every format that needs no library, by suffix and form."""
    columns = write.named(cloud.points, cloud.colours)
    packed = dict(zip("xyz", cloud.points.T, strict=True)) | {"rgb": write.packed(cloud.colours)}
    table = np.concatenate([cloud.points, cloud.colours], axis=1)
    text = "".join(" ".join(f"{number:.9g}" for number in row) + "\n" for row in table)
    half = [{"POSITION": cloud.points[part], "COLOR_0": cloud.colours[part]} for part in (slice(20), slice(20, None))]
    return {
        "ascii.ply": write.ply(columns, form="ascii"),
        "little.ply": write.ply(columns),
        "big.ply": write.ply(packed, form="binary_big_endian"),
        "two.glb": write.glb(*half),
        "two.gltf": gltf_bytes(write.glb(*half)),
        "ascii.pcd": write.pcd(packed, data="ascii"),
        "binary.pcd": write.pcd(columns),
        "compressed.pcd": write.pcd(packed, data="binary_compressed"),
        "plain.npy": saved(np.save, table),
        "plain.npz": saved(np.savez, points=cloud.points, colours=cloud.colours),
        "compressed.npz": saved(np.savez_compressed, points=cloud.points, colours=cloud.colours),
        "rows.xyz": text.encode(),
        "named.csv": ("x,y,z,r,g,b\n" + text.replace(" ", ",")).encode(),
    }


@pytest.fixture(scope="session")
def library_files(cloud: Cloud, write: Writers) -> dict[str, bytes]:
    """The cloud in the formats whose libraries are installed."""
    found = {}
    if importlib.util.find_spec("laspy"):
        found["points.las"] = las(*cloud, compressed=False)
        if importlib.util.find_spec("lazrs"):
            found["points.laz"] = las(*cloud, compressed=True)
    if importlib.util.find_spec("DracoPy"):
        found["draco.glb"] = draco(*cloud, write)
    return found


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Any]:
    """Read bytes as a file of this suffix through the one interface."""
    from stllm_edge.runtime.inputs.points import load_points

    def load(content: bytes, suffix: str, **options: Any) -> Any:
        file = tmp_path / f"cloud{suffix}"
        file.write_bytes(content)
        return load_points(file, **options)

    return load
