"""Read damaged copies of point cloud files: each is read or refused in one line, in bounded time and memory.

`python tests/runtime/inputs/clouds/damaged.py FOLDER COUNT` damages each file of a folder so many times, always in the
same ways, with the address space limited, and prints what became of them.
"""

import logging
import random
import re
import resource
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path

from stllm_edge.runtime.errors import StllmError
from stllm_edge.runtime.inputs.points import load_points

# bytes beyond what the process has before it begins: what C libraries take is not traced
MOST_ADDRESSES = 1 << 30
# traced bytes while a file is read: so many times its size, and a constant for the reader itself
MOST_FACTOR, READER = 64, 1 << 21
# an archive may unpack to a hundred times its size
MOST_FACTOR_ARCHIVE = 400
MOST_SECONDS = 5.0
HUGE = [b"0", b"-1", b"7", b"255", b"4294967295", b"99999999999999", b"1e300", b"nan", b"9" * 40]


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


def outcome(file: Path, size: int) -> str:
    """Read a file; what became of it, `read` and `refused` if all is well."""
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.monotonic()
    try:
        load_points(file)
        became = "read"
    except StllmError as error:
        became = "refused" if "\n" not in str(error) and "point cloud" in str(error) else f"not one line: {error}"
    except Exception as error:
        became = f"{type(error).__name__}: {error}"
    taken = tracemalloc.get_traced_memory()[1] - before
    if taken > READER + size * (MOST_FACTOR_ARCHIVE if file.suffix == ".npz" else MOST_FACTOR):
        became = f"took {taken} bytes for {size}"
    if time.monotonic() - start > MOST_SECONDS:
        became = f"took {time.monotonic() - start:.0f} s"
    return became


def main(folder: Path, count: int) -> int:
    """Damage and read all; the number of files that were neither read nor refused as they have to be."""
    logging.disable()
    warnings.simplefilter("ignore")
    originals = sorted(folder.iterdir())
    for original in originals:
        load_points(original)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_ADDRESSES,) * 2)
    tracemalloc.start()
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        for original in originals:
            generator, content, seen = random.Random(original.name), original.read_bytes(), Counter[str]()
            file = Path(scratch, original.name)
            for _ in range(count):
                changed = damaged(content, generator)
                file.write_bytes(changed)
                seen[outcome(file, len(changed))] += 1
            print(original.name, dict(seen))
            bad += sum(times for became, times in seen.items() if became not in ("read", "refused"))
    return bad


if __name__ == "__main__":
    sys.exit(min(1, main(Path(sys.argv[1]), int(sys.argv[2]))))
