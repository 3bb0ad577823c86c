"""COLMAP's models, as text and as binary files: world-to-camera poses by image, and cameras."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import BadInput
from .cameras import Cameras, image_stem
from .lens import COLMAP_MODELS, Lens, colmap_lens
from .numbers import decode, read_bytes
from .poses import RawPoses, from_quaternions

__all__ = ["is_colmap", "read_colmap"]

CAMERA, IMAGE, COUNT = struct.Struct("<iiQQ"), struct.Struct("<i7di"), struct.Struct("<Q")
# of a point that an image shows: x, y and the number of the point in space
POINT_BYTES = 24
# an image's number, quaternion, translation and camera, before its name
IMAGE_WORDS = 9

# number of the camera, quaternion and translation, and the image's name
Image = tuple[int, tuple[float, ...], str]


def is_colmap(folder: Path) -> bool:
    """Whether a folder holds a model."""
    return any(all((folder / f"{name}{end}").is_file() for name in ("cameras", "images")) for end in (".bin", ".txt"))


def read_colmap(folder: Path) -> Cameras:
    """The cameras of a model, of which the binary files are read where both kinds are there, as COLMAP does.

    Raises:
        BadInput: a file is damaged or of another kind, or it holds no images.
    """
    binary = all((folder / f"{name}.bin").is_file() for name in ("cameras", "images"))
    end = ".bin" if binary else ".txt"
    files = [folder / f"{name}{end}" for name in ("cameras", "images")]
    cameras, images = (read_bytes(file, f"cameras {file}") for file in files)
    try:
        lenses = dict((binary_cameras if binary else text_cameras)(cameras, f"cameras {files[0]}"))
    except (ValueError, struct.error, IndexError) as error:
        raise BadInput(f"cameras {files[0]}: not COLMAP's, or damaged ({error})") from None
    try:
        posed = list(binary_images(images) if binary else text_images(decode(images)))
    except (ValueError, struct.error, IndexError) as error:
        raise BadInput(f"cameras {files[1]}: not COLMAP's, or damaged ({error})") from None
    return gather(f"COLMAP model {folder}", lenses, posed)


def gather(source: str, lenses: dict[int, Lens], posed: list[Image]) -> Cameras:
    """The cameras of images; raises BadInput where one names a camera that is not there."""
    if not posed:
        raise BadInput(f"{source}: holds no images")
    names = [image_stem(name) for _, _, name in posed]
    numbers = np.array([pose for _, pose, _ in posed], np.float64)
    if missing := [f"{name} has camera {camera}" for camera, _, name in posed if camera not in lenses]:
        raise BadInput(f"{source}: {missing[0]}, which is not among the cameras")
    matrices = dict(zip(names, from_quaternions(numbers[:, :4], numbers[:, 4:]), strict=True))
    if len(matrices) < len(names):
        raise BadInput(f"{source}: {len(names) - len(matrices)} images have the name of another")
    by_name = {name: lenses[camera] for name, (camera, _, _) in zip(names, posed, strict=True)}
    return Cameras(source, RawPoses(matrices, source, "w2c"), by_name)


def text_cameras(data: bytes, source: str) -> Iterator[tuple[int, Lens]]:
    """Lines of number, model, width, height and parameters."""
    for line in decode(data).splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            size = (int(words[2]), int(words[3]))
            yield int(words[0]), colmap_lens(words[1], size, [float(word) for word in words[4:]], source)


def text_images(text: str) -> Iterator[Image]:
    """A line of each image, after which may stand one of the points that it shows, which may be empty."""
    for line in text.splitlines():
        words = line.split(maxsplit=IMAGE_WORDS)
        if not words or words[0].startswith("#") or is_points(words):
            continue
        if len(words) <= IMAGE_WORDS:
            raise ValueError(f"expected 10 words of an image, found {line[:80]!r}")
        yield int(words[8]), tuple(float(word) for word in words[1:8]), words[9].strip()


def is_points(words: list[str]) -> bool:
    """Whether a line is that of points, three numbers each; an image's ends with a name."""
    if len(words) <= IMAGE_WORDS:
        return len(words) % 3 == 0
    rest = words[IMAGE_WORDS].split()
    return len(rest) % 3 == 0 and all(map(is_number, (rest[0], rest[-1])))


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def binary_cameras(data: bytes, source: str) -> Iterator[tuple[int, Lens]]:
    """A count, and of each camera its number, model, width, height and parameters."""
    models = list(COLMAP_MODELS)
    place = COUNT.size
    for _ in range(COUNT.unpack_from(data)[0]):
        number, model, width, height = CAMERA.unpack_from(data, place)
        place += CAMERA.size
        if not 0 <= model < len(models):
            raise ValueError(f"a camera's model has the number {model}")
        count = len(COLMAP_MODELS[models[model]].split())
        yield (
            number,
            colmap_lens(models[model], (width, height), list(struct.unpack_from(f"<{count}d", data, place)), source),
        )
        place += 8 * count


def binary_images(data: bytes) -> Iterator[Image]:
    """A count, and of each image its number, pose, camera, name to a zero byte, and points, which are passed over."""
    place = COUNT.size
    for _ in range(COUNT.unpack_from(data)[0]):
        _, *pose, camera = IMAGE.unpack_from(data, place)
        place += IMAGE.size
        end = data.index(b"\0", place)
        name = data[place:end].decode("utf-8", "replace")
        if not name.isprintable():
            raise ValueError(f"the name of an image is {name!r}")
        (points,) = COUNT.unpack_from(data, end + 1)
        place = end + 1 + COUNT.size + points * POINT_BYTES
        if place > len(data):
            raise ValueError(f"ends within the points of {name}")
        yield camera, tuple(pose), name
