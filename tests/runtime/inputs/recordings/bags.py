"""Bags of a small robot, written with the library that reads them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

NANO = 1_000_000_000
BEGIN = 1_700_000_000 * NANO
KINDS = ("bag", "sqlite3", "mcap", "bare", "lz4", "bz2", "chunks", "messages")
# of the kinds above those of ROS 1, and those whose chunks or messages are compressed by zstd
ROS1 = {"bag": None, "lz4": Writer1.CompressionFormat.LZ4, "bz2": Writer1.CompressionFormat.BZ2}
PACKED = {"chunks": CompressionMode.STORAGE, "messages": CompressionMode.MESSAGE}


@dataclass
class Robot:
    """Writes messages of either ROS under the same names; times are seconds since it began."""

    kind: str
    writer: Any
    types: Any
    connections: dict[str, Any] = field(default_factory=dict)

    @property
    def ros1(self) -> bool:
        return self.kind in ROS1

    def make(self, kind: str, /, **fields: Any) -> Any:
        return self.types.types[kind](**fields)

    def stamp(self, seconds: float) -> Any:
        at = BEGIN + round(seconds * NANO)
        return self.make("builtin_interfaces/msg/Time", sec=at // NANO, nanosec=at % NANO)

    def header(self, seconds: float, frame: str) -> Any:
        more = {"seq": 0} if self.ros1 else {}
        return self.make("std_msgs/msg/Header", stamp=self.stamp(seconds), frame_id=frame, **more)

    def send(self, topic: str, message: Any, seconds: float) -> None:
        """Write a message, received a millisecond after its time."""
        name = message.__msgtype__
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, name, typestore=self.types)
        data = (self.types.serialize_ros1 if self.ros1 else self.types.serialize_cdr)(message, name)
        self.writer.write(self.connections[topic], BEGIN + round(seconds * NANO) + 1_000_000, data)

    def image(self, seconds: float, frame: np.ndarray, encoding: str = "rgb8", at: str = "eye", **more: Any) -> Any:
        """Of [H, W, C] numbers as they are; `more` replaces fields."""
        fields = {
            "header": self.header(seconds, at),
            "height": frame.shape[0],
            "width": frame.shape[1],
            "encoding": encoding,
            "is_bigendian": 0,
            "step": frame[0].nbytes,
            "data": np.ascontiguousarray(frame).view(np.uint8).ravel(),
        }
        return self.make("sensor_msgs/msg/Image", **{**fields, **more})

    def compressed(self, seconds: float, data: bytes, kind: str = "jpeg", at: str = "eye") -> Any:
        data = np.frombuffer(data, np.uint8)
        return self.make("sensor_msgs/msg/CompressedImage", header=self.header(seconds, at), format=kind, data=data)

    def info(self, size: tuple[int, int], matrix: np.ndarray, at: str = "eye", **more: Any) -> Any:
        projection = np.hstack([matrix, np.zeros((3, 1))])
        numbers = {"d": np.zeros(5), "k": matrix.ravel(), "r": np.eye(3).ravel(), "p": projection.ravel()}
        numbers |= {name: np.asarray(more.pop(name), np.float64) for name in list(more) if name in numbers}
        if self.ros1:
            numbers = {name.upper(): values for name, values in numbers.items()}
        roi = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False, **more.pop("roi", {})}
        fields = {
            "header": self.header(0, at),
            "width": size[0],
            "height": size[1],
            "distortion_model": "plumb_bob",
            "binning_x": 0,
            "binning_y": 0,
            "roi": self.make("sensor_msgs/msg/RegionOfInterest", **roi),
        }
        return self.make("sensor_msgs/msg/CameraInfo", **{**fields, **numbers, **more})

    def cloud(
        self, seconds: float, points: np.ndarray, colours: np.ndarray | None, at: str, layout: str = "rgb"
    ) -> Any:
        """Of points [P, 3] and colours [P, 3]; the layout is how the colours are written."""
        columns: dict[str, np.ndarray] = {axis: points[:, place].astype("<f4") for place, axis in enumerate("xyz")}
        if layout in ("rgb", "rgba", "packed"):
            assert colours is not None
            red, green, blue = colours.astype(np.uint32).T
            bits = np.ascontiguousarray(red << 16 | green << 8 | blue, "<u4")
            columns["rgba" if layout == "rgba" else "rgb"] = bits.view("<f4") if layout == "rgb" else bits
        elif layout == "r g b":
            assert colours is not None
            columns |= {name: colours[:, place].astype("u1") for place, name in enumerate("rgb")}
        else:
            columns["intensity"] = np.ones(len(points), "<f4")
        # programs leave room between fields
        kind = np.dtype([(name, column.dtype) for name, column in columns.items()] + [("gap", "V4")])
        rows = np.zeros(len(points), kind)
        for name, column in columns.items():
            rows[name] = column
        codes = {"f4": 7, "u4": 6, "u1": 2}
        assert kind.fields is not None
        fields = [
            self.make("sensor_msgs/msg/PointField", name=name, offset=int(kind.fields[name][1]),
                      datatype=codes[column.dtype.str[1:]], count=1)
            for name, column in columns.items()
        ]  # fmt: skip
        return self.make(
            "sensor_msgs/msg/PointCloud2",
            header=self.header(seconds, at),
            height=1,
            width=len(points),
            fields=fields,
            is_bigendian=False,
            point_step=kind.itemsize,
            row_step=kind.itemsize * len(points),
            data=rows.view(np.uint8),
            is_dense=False,
        )

    def placed(self, pose: np.ndarray) -> tuple[Any, Any, Any]:
        """A pose [4, 4] as a vector, a point and a quaternion."""
        x, y, z = map(float, pose[:3, 3])
        w, i, j, k = map(float, quaternion(pose[:3, :3]))
        vector = self.make("geometry_msgs/msg/Vector3", x=x, y=y, z=z)
        point = self.make("geometry_msgs/msg/Point", x=x, y=y, z=z)
        return vector, point, self.make("geometry_msgs/msg/Quaternion", x=i, y=j, z=k, w=w)

    def transform(self, seconds: float, parent: str, child: str, pose: np.ndarray) -> Any:
        vector, _, turn = self.placed(pose)
        moved = self.make("geometry_msgs/msg/Transform", translation=vector, rotation=turn)
        header = self.header(seconds, parent)
        return self.make("geometry_msgs/msg/TransformStamped", header=header, child_frame_id=child, transform=moved)

    def tf(self, *transforms: Any) -> Any:
        return self.make("tf2_msgs/msg/TFMessage", transforms=list(transforms))

    def stamped(self, seconds: float, parent: str, pose: np.ndarray) -> Any:
        _, point, turn = self.placed(pose)
        at = self.make("geometry_msgs/msg/Pose", position=point, orientation=turn)
        return self.make("geometry_msgs/msg/PoseStamped", header=self.header(seconds, parent), pose=at)

    def odometry(self, seconds: float, parent: str, child: str, pose: np.ndarray) -> Any:
        covariance, none = np.zeros(36), self.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        at = self.make(
            "geometry_msgs/msg/PoseWithCovariance", pose=self.stamped(0, "", pose).pose, covariance=covariance
        )
        twist = self.make("geometry_msgs/msg/Twist", linear=none, angular=none)
        speed = self.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=covariance)
        header = self.header(seconds, parent)
        return self.make("nav_msgs/msg/Odometry", header=header, child_frame_id=child, pose=at, twist=speed)

    def path(self, seconds: float, parent: str, poses: dict[float, np.ndarray]) -> Any:
        entries = [self.stamped(at, parent, pose) for at, pose in poses.items()]
        return self.make("nav_msgs/msg/Path", header=self.header(seconds, parent), poses=entries)


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Of a rotation, real part first, by the eigenvector of its symmetric form."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    form = [[a + e + i, h - f, c - g, d - b], [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h], [d - b, c + g, f + h, i - a - e]]  # fmt: skip
    return np.linalg.eigh(np.array(form))[1][:, -1]


@contextmanager
def recorded(folder: Path, kind: str = "mcap") -> Iterator[tuple[Robot, Path]]:
    """A robot whose messages are written to a bag of a kind of `KINDS`, and where the bag is once it is closed."""
    folder.mkdir(parents=True, exist_ok=True)
    types = get_typestore(Stores.ROS1_NOETIC if kind in ROS1 else Stores.ROS2_HUMBLE)
    if kind in ROS1:
        types.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))
        writer = Writer1(folder / "walk.bag")
        if ROS1[kind]:
            writer.set_compression(ROS1[kind])
        with writer:
            yield Robot(kind, writer, types), folder / "walk.bag"
        return
    plugin = StoragePlugin.SQLITE3 if kind == "sqlite3" else StoragePlugin.MCAP
    writer = Writer2(folder / "walk", version=9, storage_plugin=plugin)
    if kind in PACKED:
        writer.set_compression(PACKED[kind], CompressionFormat.ZSTD)
    with writer:
        yield Robot(kind, writer, types), folder / "walk" if kind != "bare" else folder / "walk" / "walk.mcap"
