"""Read damaged copies of files: each is read or refused in one line, in bounded time and memory.

`python tests/runtime/inputs/together/damaged.py KIND FOLDER COUNT` damages each file of a folder so many times, always
in the same ways, with the address space limited, and prints what became of them. A folder in it is a bag, or cameras in
several files, or a scene of depth frames with its clip, of which each is damaged in turn. Kinds are those of `READERS`.
"""

import logging
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from stllm_edge.runtime.errors import StllmError
from stllm_edge.runtime.inputs.cameras import load_intrinsics, usable
from stllm_edge.runtime.inputs.cameras.reading import load_cameras
from stllm_edge.runtime.inputs.clip import load_clip
from stllm_edge.runtime.inputs.decoding.images import read_image
from stllm_edge.runtime.inputs.points import load_points
from stllm_edge.runtime.inputs.recordings.info import survey
from stllm_edge.runtime.inputs.recordings.reading import load_recording
from stllm_edge.runtime.inputs.scene import load_scene

# bytes beyond what the process has before it begins: what C libraries take is not traced
MOST_ADDRESSES = 1 << 30
# traced bytes while a file is read: so many times its size, and a constant for the reader itself
MOST_FACTOR, READER = 64, 1 << 21
# an archive may unpack to a hundred times its size, and a picture has up to a thousand pixels a byte, or four million
MOST_FACTOR_ARCHIVE = 400
PICTURE = 1 << 26
MOST_SECONDS = 10.0
HUGE = [b"0", b"-1", b"7", b"255", b"4294967295", b"99999999999999", b"1e300", b"nan", b"9" * 40]


def read_video(file: Path) -> None:
    """A clip and its first, middle and last frame."""
    clip = load_clip(file)
    for _ in clip.read([0, len(clip) // 2, len(clip) - 1]):
        pass


def read_bag(path: Path) -> None:
    """A recording with its frames, and what it holds."""
    survey(path)
    _, clip = load_recording(path)
    for _ in clip.read(range(len(clip))):
        pass


def read_depth_frames(folder: Path) -> None:
    """A scene of depth frames, of which the scene's file and the clip are a part."""
    load_scene(folder, clip=load_clip(folder / "video"))


# by kind of file, with bytes that the reader itself may take
READERS: dict[str, tuple[Callable[[Path], object], int]] = {
    "clouds": (load_points, READER),
    "cameras": (lambda file: usable(load_cameras(file).poses), READER),
    "intrinsics": (load_intrinsics, READER),
    "images": (read_image, PICTURE),
    "videos": (read_video, PICTURE),
    "depth": (read_depth_frames, PICTURE),
    "bags": (read_bag, PICTURE),
}


def damaged(content: bytes, generator: random.Random) -> bytes:
    """A copy with one to four faults, most of them near the beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        reach = len(changed) if generator.random() < 0.4 else min(len(changed), 400)
        at = generator.randrange(reach + 1)
        length = generator.choice((1, 2, 4, 8, 30))
        match generator.randrange(8):
            case 0 | 1:
                changed[at : at + 1] = bytes([generator.randrange(256)])
            case 2:
                changed[at : at + length] = generator.randbytes(length)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                del changed[at:]
            case 6:
                changed[at : at + 4] = generator.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)))
            case 7:
                numbers = [found.span() for found in re.finditer(rb"\d+", changed[:400])]
                start, end = generator.choice(numbers or [(0, 0)])
                changed[start:end] = generator.choice(HUGE)
    return bytes(changed)


def outcome(kind: str, file: Path, size: int) -> str:
    """Read a file; what became of it, `read` and `refused` if all is well."""
    read, itself = READERS[kind]
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    try:
        read(file)
        became = "read"
    except StllmError as error:
        became = "refused" if "\n" not in str(error) and file.stem in str(error) else f"not one line: {error}"
    except Exception as error:
        became = f"{type(error).__name__}: {error}"
    taken = tracemalloc.get_traced_memory()[1] - before
    if taken > itself + size * (MOST_FACTOR_ARCHIVE if file.suffix == ".npz" else MOST_FACTOR):
        became = f"took {taken} bytes for {size}"
    if time.process_time() - start > MOST_SECONDS:
        became = f"took {time.process_time() - start:.0f} s"
    return became


def targets(original: Path) -> list[Path]:
    """The files that are damaged of an original, relative to it."""
    return [file.relative_to(original) for file in sorted(original.rglob("*")) if file.is_file()] or [Path()]


def try_all(kind: str, original: Path, count: int, scratch: Path) -> int:
    """Damage a file, or each in a folder; the number of times that it was neither read nor refused as it has to be."""
    bad, copy = 0, scratch / original.name
    for target in targets(original):
        generator, seen = random.Random(f"{original.name}/{target}"), Counter[str]()
        (shutil.copytree if original.is_dir() else shutil.copy)(original, copy)
        content = (original / target).read_bytes()
        # what is beside a damaged file is read too
        beside = sum(file.stat().st_size for file in (copy.rglob("*") if copy.is_dir() else [copy])) - len(content)
        for _ in range(count):
            changed = damaged(content, generator)
            (copy / target).write_bytes(changed)
            seen[outcome(kind, copy, len(changed) + beside)] += 1
        print(original.name, target if original.is_dir() else "", dict(seen), flush=True)
        bad += sum(times for became, times in seen.items() if became not in ("read", "refused"))
        (shutil.rmtree if original.is_dir() else Path.unlink)(copy)
    return bad


def main(kind: str, folder: Path, count: int) -> int:
    """Damage and read all; the number of files that were neither read nor refused as they have to be."""
    logging.disable()
    logging.getLogger("libav").propagate = False
    warnings.simplefilter("ignore")
    originals = sorted(folder.iterdir())
    for original in originals:
        READERS[kind][0](original)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_ADDRESSES,) * 2)
    tracemalloc.start()
    with tempfile.TemporaryDirectory() as scratch:
        return sum(try_all(kind, original, count, Path(scratch)) for original in originals)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
