"""A bag of messages: its topics, and their messages in the order that they were received in."""

import heapq
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from ...errors import BadInput, StllmError
from ...libraries import load_library
from ..decoding.bounded import BoundedFile

__all__ = ["Bag", "Message", "Topic", "open_bag", "stamp_of", "unpack"]

LOG = logging.getLogger(__name__)
INSTALL = "pip install 'stllm-edge[ros]'"
NANO = 1_000_000_000
STORES = (".mcap", ".db3")
# what a chunk or a message may unpack to: so many times its bytes, and what images of one colour come to
MOST_FACTOR, ANY_BYTES = 64, 1 << 26
PIECE = 1 << 20
# streams one after the other: each costs a copy of all that follow
MOST_STREAMS = 256
# of ROS 1, which its usual packages do not bring
MORE_TYPES = {
    "tf2_msgs/msg/TFMessage": "geometry_msgs/TransformStamped[] transforms",
    "tf/msg/tfMessage": "geometry_msgs/TransformStamped[] transforms",
}
# what the library says of a file, and what mends it
MENDS = {
    "end magic": "it was not closed, or is cut off: mcap recover FILE -o NEW.mcap",
    "not ros2": "its channels are not those of ROS 2: convert it to a bag of ROS 2",
    "not indexed": "it was not closed: rosbag reindex FILE",
    "index looks damaged": "rosbag reindex FILE",
    "database files are missing": "give the bag's whole folder",
    "malformed": "it is cut off or damaged: sqlite3 FILE .recover, then ros2 bag reindex",
    "database": "ros2 bag reindex DIR, or record it anew",
}


@dataclass(frozen=True)
class Topic:
    """A name that messages of one type were sent to.

    Attributes:
        name: as in /camera/image_raw.
        type: as in sensor_msgs/msg/Image.
        count: messages.
    """

    name: str
    type: str
    count: int

    def __str__(self) -> str:
        return f"{self.name} ({self.count} {self.type.rpartition('/')[2]})"


class Message(NamedTuple):
    """A message: its topic, nanoseconds at which it was received, and its fields."""

    topic: str
    received: int
    fields: Any


class Bag:
    """An open bag.

    Messages are read as the types of their names are defined in ROS; definitions that a file brings are not used, so
    nothing of it is run.
    """

    def __init__(self, path: Path, readers: list[Any], types: Any, ros1: bool):
        self.path = path
        self._readers, self._types, self._ros1 = readers, types, ros1
        self.topics: dict[str, Topic] = {}
        for reader in readers:
            for connection in reader.connections:
                known = self.topics.get(connection.topic)
                count = connection.msgcount + (known.count if known else 0)
                self.topics[connection.topic] = Topic(connection.topic, connection.msgtype, count)
        filled = [reader for reader in readers if reader.message_count]
        self.start = min((reader.start_time for reader in filled), default=0)
        self.stop = max((reader.end_time for reader in filled), default=0)

    def __str__(self) -> str:
        return f"bag {self.path}"

    @property
    def indexed(self) -> bool:
        """Whether messages of a time are found without reading all before it."""
        storages: list[Any] = [getattr(reader, "storage", None) for reader in self._readers]
        return not any(type(storage).__name__ == "McapReader" and not storage.chunks for storage in storages)

    def messages(self, topics: Collection[str], start: int | None = None, stop: int | None = None) -> Iterator[Message]:
        """Messages of topics, received from `start` to before `stop`, nanoseconds.

        Raises:
            BadInput: the bag is damaged, or a message is not of the type that it is said to be.
        """
        with told(self.path):
            sources = [self._of_reader(reader, topics, start, stop) for reader in self._readers]
            for connection, received, data in heapq.merge(*sources, key=lambda entry: entry[1]):
                yield Message(connection.topic, received, self._read(connection, data))

    def _of_reader(
        self, reader: Any, topics: Collection[str], start: int | None, stop: int | None
    ) -> Iterator[tuple[Any, int, bytes]]:
        wanted = [connection for connection in reader.connections if connection.topic in topics]
        return reader.messages(wanted, start, stop) if wanted else iter(())

    def _read(self, connection: Any, data: bytes) -> Any:
        read = self._types.deserialize_ros1 if self._ros1 else self._types.deserialize_cdr
        try:
            return read(data, connection.msgtype)
        except Exception as error:  # of a damaged message, generated code raises anything
            raise BadInput(
                f"bag {self.path}: a message of {connection.topic} is no {connection.msgtype} ({reason_of(error)})"
            ) from None


class BoundedPath(type(Path())):  # type: ignore[misc]
    """A path whose file gives no more bytes than it has: lengths in a damaged one are not allocated."""

    def open(self, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        """As a path does, and for reading bytes with bounds."""
        return BoundedFile(self) if mode == "rb" else super().open(mode, *arguments, **options)


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag: an .mcap, .db3 or .bag file, or a folder as `ros2 bag record` writes them, or of .bag files.

    Raises:
        BadInput: it is none, or damaged; the line says what mends it, where something does.
        MissingDependency: the extra `ros` is not installed.
    """
    files, ros1 = locate(path)
    typesys = load_library("rosbags.typesys", INSTALL)
    reader = load_library("rosbags.rosbag1" if ros1 else "rosbags.rosbag2", INSTALL).Reader
    types = typesys.get_typestore(typesys.Stores.ROS1_NOETIC if ros1 else typesys.Stores.LATEST)
    for name, definition in MORE_TYPES.items():
        if name not in types.types:
            types.register(typesys.get_types_from_msg(definition, name))
    with ExitStack() as stack:
        with told(path):
            bound_library(ros1)
            bag = Bag(path, [stack.enter_context(reader(BoundedPath(file))) for file in files], types, ros1)
        yield bag


def unpack(decompressor: Callable[[], Any], data: bytes) -> bytes:
    """Unpack streams that stand one after the other, at most `MOST_FACTOR` times their size and `ANY_BYTES`.

    Args:
        decompressor: makes one stream's, of `bz2`, `lz4.frame` or `zstd`.
        data: the streams.

    Raises:
        ValueError: it would be more, there are over `MOST_STREAMS`, or the last stream is cut off.
    """
    most, unpacked, streams = MOST_FACTOR * len(data) + ANY_BYTES, bytearray(), 0
    while data:
        if (streams := streams + 1) > MOST_STREAMS:
            raise ValueError(f"compressed data is of over {MOST_STREAMS} streams")
        stream, given = decompressor(), data
        while not stream.eof:
            piece = stream.decompress(given, PIECE)
            given = b""
            unpacked += piece
            if len(unpacked) > most:
                raise ValueError(f"{len(data)} compressed bytes unpack to over {most}")
            if not piece and not stream.eof and stream.needs_input:
                raise ValueError("compressed data is cut off")
        data = stream.unused_data or b""
    return bytes(unpacked)


def bound_library(ros1: bool) -> None:
    """Let the library that reads bags unpack by `unpack`, since its own ways take what a file claims.

    From then on it does so in the whole process, also for others who read bags in it.
    """
    lz4 = load_library("lz4.frame").LZ4FrameDecompressor
    if ros1:
        bz2 = load_library("bz2").BZ2Decompressor
        known = load_library("rosbags.rosbag1.reader").decompressors
        known.update(bz2=lambda data: unpack(bz2, data), lz4=lambda data: unpack(lz4, data))
        return
    reader = load_library("rosbags.rosbag2.reader")
    opened, zstd = reader.zstd.open, load_library("rosbags.rosbag2.storage_mcap").zstd.ZstdDecompressor
    # of a file that is compressed as a whole the library makes another on the disk, a piece at a time
    reader.zstd = SimpleNamespace(open=opened, decompress=lambda data: unpack(zstd, data))
    known = load_library("rosbags.rosbag2.storage_mcap").DECOMPRESSORS
    known.update(zstd=lambda data, _: unpack(zstd, data), lz4=lambda data, _: unpack(lz4, data))


def locate(path: Path) -> tuple[list[Path], bool]:
    """The files or the folder that a library's reader takes, and whether they are of ROS 1."""
    if path.is_file():
        if path.suffix not in (*STORES, ".bag"):
            raise BadInput(f"bag {path}: expected a .mcap, .db3 or .bag file, or a bag's folder")
        return [path], path.suffix == ".bag"
    if not path.is_dir():
        raise BadInput(f"bag {path}: no such file or folder")
    if (path / "metadata.yaml").is_file():
        return [path], False
    names = [file for file in sorted(path.iterdir()) if file.name[0] != "."]
    if bags := [file for file in names if file.suffix == ".bag"]:
        return bags, True
    stores = [file for file in names if file.suffix in STORES]
    if len(stores) == 1:
        LOG.warning("bag %s: has no metadata.yaml, so that %s alone is read", path, stores[0].name)
        return stores, False
    found = f"{len(stores)} stores and no metadata.yaml; make it with ros2 bag reindex" if stores else "none of them"
    raise BadInput(f"bag {path}: expected metadata.yaml with the .mcap or .db3 files, or .bag files; found {found}")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Whatever a library raises while it reads a bag, as one line."""
    try:
        yield
    except StllmError:
        raise
    except Exception as error:  # readers of damaged files raise anything
        reason = reason_of(error)
        mend = next((f"; {mend}" for words, mend in MENDS.items() if words in reason), "")
        raise BadInput(f"bag {path}: cannot be read ({reason}){mend}") from None


def reason_of(error: Exception) -> str:
    """What a library says, or at least the kind of error."""
    words = " ".join(str(error).split())[:200]
    return words if " " in words else f"{type(error).__name__} {words}".strip()


def stamp_of(fields: Any) -> int:
    """Nanoseconds in the header of a message; 0 where none were set."""
    stamp = fields.header.stamp
    return int(stamp.sec) * NANO + int(stamp.nanosec)
