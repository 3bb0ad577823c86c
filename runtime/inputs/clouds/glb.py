"""Coloured geometries of a glTF scene (.glb, .gltf), where its nodes put them."""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput, MissingDependency
from .colours import scaled, to_bytes
from .gltf import Document

__all__ = ["read_first_geometry", "read_glb"]

LOG = logging.getLogger(__name__)
# as the authors do
GLB_LIMIT, GLB_STEP = 1_000_000, 10
POINTS, TRIANGLES = 0, 4
LINES = (1, 2, 3)
DRACO = "KHR_draco_mesh_compression"
# what a reader of points may need, and does; what is about surfaces, lights and pictures does not matter to it
READ = (DRACO, "EXT_meshopt_compression", "KHR_meshopt_compression", "KHR_mesh_quantization")
NO_MATTER = ("KHR_materials_", "KHR_texture_", "EXT_texture_", "MSFT_texture_", "KHR_lights_")
TEXTURED = "coloured by a texture, which is not read"
ADVICE = "give it a colour a vertex, or sample it to a point cloud"

Part = tuple[np.ndarray, np.ndarray]


def read_glb(path: Path) -> Part:
    """Points [P, 3] and colours [P, 3] of all geometries of the scene; over a million points every tenth is kept.

    Geometries without a colour a vertex are left out and counted, if there are others. Positions are float32 where
    no node moves them, else float64.

    Raises:
        BadInput: the file is damaged, or none of its geometries has colours that are read.
        MissingDependency: it is compressed with Draco, and DracoPy is not installed.
    """
    document = opened(path)
    parts, left_out = list[Part](), Counter[str]()
    # nodes may repeat a mesh, which takes memory that the file does not
    room = path.stat().st_size
    for world, mesh in placed_meshes(document):
        for primitive in primitives(document, mesh):
            if reason := why_not(document, primitive):
                left_out[reason] += 1
                continue
            points, colours = read_primitive(document, primitive)
            room -= len(points)
            if room < 0:
                raise BadInput(f"damaged; its nodes repeat its meshes to over {path.stat().st_size} points")
            parts.append((moved(points, world), colours))
    told = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    if not parts:
        raise BadInput(f"no colours; of its geometries, {told or 'there are none'}; {ADVICE}")
    if told:
        LOG.warning("point cloud %s: geometries are left out: %s", path, told)
    points, colours = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return thinned(points, colours, path)


def read_first_geometry(path: Path) -> Part:
    """The first geometry as it is stored, whatever the nodes say, as the authors read a GLB; thinned like all.

    Raises:
        BadInput: the file is damaged, or this geometry has no colours.
        MissingDependency: it is compressed with Draco, and DracoPy is not installed.
    """
    document = opened(path)
    meshes = range(len(document.tree.get("meshes", [])))
    all_of_them = [primitive for mesh in meshes for primitive in primitives(document, mesh)]
    geometries = [primitive for primitive in all_of_them if primitive.get("mode", TRIANGLES) not in LINES]
    if not geometries:
        raise BadInput("not a readable GLB file with a geometry")
    if reason := why_not(document, geometries[0]):
        raise BadInput(f"no colours; its first geometry is {reason}; {ADVICE}")
    if len(geometries) > 1:
        LOG.info("point cloud %s: the first of %d geometries is read, as --glb first asks", path, len(geometries))
    return thinned(*read_primitive(document, geometries[0]), path)


def opened(path: Path) -> Document:
    """The document, if it needs nothing that is not read."""
    document = Document.read(path)
    required = document.tree.get("extensionsRequired", [])
    unknown = [n for n in required if n not in READ and not str(n).startswith(NO_MATTER)]
    if unknown:
        raise BadInput(f"it needs the extension {unknown[0]}, which is not read; export it without")
    return document


def placed_meshes(document: Document) -> Iterator[tuple[np.ndarray, int]]:
    """Where the scene has its meshes: a matrix [4, 4] float64 to the world and a mesh's index, in the nodes' order.

    A file without nodes has its meshes where they are stored.
    """
    tree = document.tree
    if not tree.get("nodes"):
        yield from ((np.eye(4), mesh) for mesh in range(len(tree.get("meshes", []))))
        return
    if tree.get("scenes"):
        roots = document.entry("scenes", tree.get("scene", 0)).get("nodes", [])
    else:
        children = {child for node in range(len(tree["nodes"])) for child in children_of(document, node)}
        roots = [node for node in range(len(tree["nodes"])) if node not in children]
    waiting, seen = [(np.eye(4), root) for root in reversed(roots)], set[int]()
    while waiting:
        above, index = waiting.pop()
        node = document.entry("nodes", index)
        if index in seen:
            raise BadInput(f"not a readable GLB file (nodes[{index}] has several parents)")
        seen.add(index)
        if isinstance(found := node.get("extensions"), dict) and "EXT_mesh_gpu_instancing" in found:
            raise BadInput("it repeats meshes by EXT_mesh_gpu_instancing, which is not read; export it without")
        world = above @ matrix_of(node)
        if "mesh" in node:
            yield world, node["mesh"]
        waiting += [(world, child) for child in reversed(children_of(document, index))]


def children_of(document: Document, node: int) -> list[int]:
    found = document.entry("nodes", node).get("children", [])
    if not isinstance(found, list) or any(type(child) is not int for child in found):
        raise BadInput(f"not a readable GLB file (the children of nodes[{node}])")
    return found


def matrix_of(node: dict[str, Any]) -> np.ndarray:
    """A node's matrix [4, 4], or that of its translation, rotation (a quaternion x, y, z, w) and scale."""
    if "matrix" in node:
        return numbers(node, "matrix", np.eye(4)).reshape(4, 4).T
    x, y, z, w = numbers(node, "rotation", np.array([0.0, 0, 0, 1]))
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(rotation) * numbers(node, "scale", np.ones(3))
    matrix[:3, 3] = numbers(node, "translation", np.zeros(3))
    return matrix


def numbers(node: dict[str, Any], name: str, default: np.ndarray) -> np.ndarray:
    """A node's list of as many finite numbers as the default has, float64."""
    value = node.get(name, default.ravel().tolist())
    kinds = isinstance(value, list) and len(value) == default.size and {type(number) for number in value}
    if not kinds or not kinds <= {int, float} or not np.isfinite(values := np.array(value, np.float64)).all():
        raise BadInput(f"not a readable GLB file (a node's {name} is {str(value)[:60]})")
    return values


def primitives(document: Document, mesh: Any) -> list[dict[str, Any]]:
    found = document.entry("meshes", mesh).get("primitives")
    if not isinstance(found, list) or not all(
        isinstance(primitive, dict) and isinstance(primitive.get("attributes"), dict) for primitive in found
    ):
        raise BadInput(f"not a readable GLB file (meshes[{mesh}] has no primitives with attributes)")
    return found


def why_not(document: Document, primitive: dict[str, Any]) -> str | None:
    """Why a geometry gives no coloured points, if it does not."""
    if primitive.get("mode", TRIANGLES) in LINES:
        return "of lines"
    attributes = primitive["attributes"]
    if "TEXCOORD_0" in attributes and "material" in primitive:
        surface = document.entry("materials", primitive["material"]).get("pbrMetallicRoughness")
        if isinstance(surface, dict) and "baseColorTexture" in surface:
            return TEXTURED
    return None if "COLOR_0" in attributes else "without a colour a vertex"


def read_primitive(document: Document, primitive: dict[str, Any]) -> Part:
    """Positions [V, 3] float32 and colours [V, 3] uint8 of a geometry, as it is stored."""
    attributes = primitive["attributes"]
    if "POSITION" not in attributes:
        raise BadInput("not a readable GLB file (a geometry has no POSITION)")
    accessors = [document.entry("accessors", attributes[name]) for name in ("POSITION", "COLOR_0")]
    extensions = primitive.get("extensions")
    if isinstance(extensions, dict) and DRACO in extensions and "bufferView" not in accessors[0]:
        points, colours = unpack_draco(document, extensions[DRACO])
    else:
        points, colours = document.array(attributes["POSITION"]), document.array(attributes["COLOR_0"])
    if points.shape[1] != 3 or colours.shape[1] not in (3, 4) or len(points) != len(colours):
        raise BadInput(f"no colours; a geometry has {points.shape} positions and {colours.shape} colours")
    if points.dtype.kind != "f" and accessors[0].get("normalized"):
        points = points.astype(np.float32) / np.iinfo(points.dtype).max
    return points.astype(np.float32, copy=False), eight_bits(colours[:, :3], document.path)


def eight_bits(colours: np.ndarray, path: Path) -> np.ndarray:
    """Colours as uint8: integers cover their types' range, floats 0..1."""
    if colours.dtype == np.uint8:
        return colours
    if colours.dtype == np.uint16:
        return scaled(colours, 65535).astype(np.uint8)
    if colours.dtype != np.float32:
        raise BadInput(f"not a readable GLB file (its colours are {colours.dtype})")
    known = np.nan_to_num(colours, posinf=0, neginf=0)
    return to_bytes(known, f"point cloud {path}").round().astype(np.uint8) if len(known) else known.astype(np.uint8)


def unpack_draco(document: Document, extension: Any) -> Part:
    """Positions and colours of a geometry that is compressed with Draco."""
    try:
        import DracoPy
    except ImportError as error:
        raise MissingDependency(
            f"point cloud {document.path}: compressed with Draco, which needs DracoPy ({error}); "
            "pip install 'stllm-edge[formats]', or export it uncompressed"
        ) from None
    wanted = extension.get("attributes") if isinstance(extension, dict) else None
    if not isinstance(wanted, dict) or not {"POSITION", "COLOR_0"} <= wanted.keys():
        raise BadInput(f"no colours; its {DRACO} holds no POSITION and COLOR_0")
    try:
        decoded = DracoPy.decode(bytes(document.view(extension.get("bufferView"))))
    except (ValueError, RuntimeError, DracoPy.FileTypeException) as error:
        raise BadInput(f"compressed with Draco, and damaged ({error})") from None
    arrays = {attribute["unique_id"]: np.asarray(attribute["data"]) for attribute in decoded.attributes}
    if not {wanted["POSITION"], wanted["COLOR_0"]} <= arrays.keys():
        raise BadInput("compressed with Draco, and damaged (its data lacks positions or colours)")
    return tuple(np.atleast_2d(arrays[wanted[name]]) for name in ("POSITION", "COLOR_0"))  # type: ignore[return-value]


def moved(points: np.ndarray, world: np.ndarray) -> np.ndarray:
    """Points where a node's matrix puts them; untouched where it puts them nowhere else."""
    if np.array_equal(world, np.eye(4)):
        return points
    return points.astype(np.float64) @ world[:3, :3].T + world[:3, 3]


def thinned(points: np.ndarray, colours: np.ndarray, path: Path) -> Part:
    """Every tenth of over a million points, as the authors do."""
    if len(points) <= GLB_LIMIT:
        return points, colours
    LOG.info("point cloud %s: every tenth of %d points is kept, as of any GLB over a million", path, len(points))
    return points[::GLB_STEP], colours[::GLB_STEP]
