"""View directions of voxels and pixels, and their sinusoidal encodings (SPEC section 5).

The encoding multiplies a direction by powers of two up to 2**63, so one unit in the last place of a direction
randomises most of its values: everything here reproduces the reference's bfloat16 roundings bit for bit.
"""

from dataclasses import dataclass

import numpy as np

from ..bundle.geometry import VisionGeometry
from .bf16 import round_bf16
from .voxels import Voxels

__all__ = [
    "LIVE_COLUMNS",
    "Rays",
    "camera_rays",
    "encode_directions",
    "world_to_first_camera",
]

# 765 columns: the direction, and a sine and a cosine of 127 frequencies for each of its axes
FREQUENCIES = 127
# 2**0 to 2**63; as int64 the powers above overflow to 0
LIVE_FREQUENCIES = 64
LIVE_COLUMNS = 3 + 2 * 3 * LIVE_FREQUENCIES
# so many rows of pixels keep the arrays of one step in the processor's cache
ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Rays:
    """View directions in the axes of the first frame's camera.

    Attributes:
        w2c_0: [4, 4] float32, world (voxel units) to first camera; exact bfloat16 values.
        voxels: [N, 3] float32, unit direction from the first camera to each voxel; exact bfloat16 values.
        frames: [T, n, n, 3] float32, pooled pixel directions; exact bfloat16 values.
    """

    w2c_0: np.ndarray
    voxels: np.ndarray
    frames: np.ndarray


def camera_rays(
    voxels: Voxels,
    poses: np.ndarray,
    intrinsics: np.ndarray,
    *,
    frame_size: tuple[int, int],
    vision: VisionGeometry,
) -> Rays:
    """Directions to all voxels and through all pooled pixels.

    Args:
        voxels: the N voxels of the scene.
        poses: [T, 4, 4] float64 camera-to-world, OpenCV axes, metres.
        intrinsics: [3, 3] float64 of the frames as they are on disk.
        frame_size: width and height of the frames on disk, pixels.
        vision: what frames are resized to and pooled to.
    """
    cameras = voxel_poses(poses, voxels.minimum, voxels.size)
    w2c_0 = world_to_first_camera(cameras)
    size = vision.image_size
    return Rays(
        w2c_0=w2c_0,
        voxels=voxel_directions(voxels.coords, w2c_0),
        frames=frame_directions(cameras, w2c_0, scale_intrinsics(intrinsics, frame_size, size), size, vision.grid),
    )


def voxel_poses(poses: np.ndarray, voxel_min: np.ndarray, voxel_size: float) -> np.ndarray:
    """Camera-to-world poses with translations in voxel units, [T, 4, 4] float32 with bfloat16 values."""
    # rounded once, at the end: a bfloat16 translation beyond 256 voxels has steps of two voxels
    scaled = np.array(poses, np.float64)
    scaled[:, :3, 3] = scaled[:, :3, 3] * (1 / voxel_size) + -np.asarray(voxel_min, np.float64)
    return round_bf16(scaled)


def world_to_first_camera(cameras: np.ndarray) -> np.ndarray:
    """Inverse of the first pose, [4, 4] float32 with bfloat16 values; the translation is rounded once."""
    rotation, translation = cameras[0, :3, :3], cameras[0, :3, 3]
    w2c = np.eye(4, dtype=np.float32)
    # once rounded, a rotation is not orthonormal; the reference still takes the transpose for its inverse
    w2c[:3, :3] = rotation.T
    w2c[:3, 3] = round_bf16(_matvec(-rotation.T, translation))
    return w2c


def voxel_directions(voxel_coords: np.ndarray, w2c_0: np.ndarray) -> np.ndarray:
    """Unit directions from the first camera to each voxel, [N, 3] float32 with bfloat16 values."""
    # bfloat16 has 8 significant bits: coordinates above 256 are rounded too, as in the reference
    camera = round_bf16(_matvec(w2c_0[:3, :3], round_bf16(voxel_coords)) + w2c_0[:3, 3])
    # float32 like the reference: normalised in float64, one voxel of some 12,000 gets another direction
    length = np.maximum(_norm(camera), np.float32(1e-12))
    return round_bf16(camera / length[:, None])


def frame_directions(
    cameras: np.ndarray, w2c_0: np.ndarray, intrinsics: np.ndarray, image_size: int, grid: int
) -> np.ndarray:
    """Pooled pixel directions, [T, grid, grid, 3] float32 with bfloat16 values.

    `intrinsics` are those of the square vision input. Pooling is adaptive average pooling; nothing is renormalised.
    """
    # the reference scales intrinsics in float64, but divides by them in float32
    fx, fy, cx, cy = (np.float32(intrinsics[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    centres = np.arange(image_size, dtype=np.float32) + np.float32(0.5)
    columns, rows = round_bf16((centres - cx) / fx), round_bf16((centres - cy) / fy)
    bins = PoolingBins.of(image_size, grid)
    # the last column stays zero: it is what bins that are shorter than others read instead of a pixel
    directions = np.zeros((3, image_size**2 + 1), np.float32)
    pooled = []
    for camera in cameras:
        rotation = round_bf16(_matmul(w2c_0, camera))[:3, :3]
        for start in range(0, image_size, ROWS_AT_ONCE):
            block = _pixel_directions(columns, rows[start : start + ROWS_AT_ONCE], rotation, cameras[0, :3, :3])
            directions[:, start * image_size : start * image_size + block[0].size] = block.reshape(3, -1)
        pooled.append(bins.average(directions))
    return round_bf16(np.stack(pooled))


def scale_intrinsics(intrinsics: np.ndarray, frame_size: tuple[int, int], image_size: int) -> np.ndarray:
    """Intrinsics of a frame resized to the square vision input, [3, 3] float64."""
    width, height = frame_size
    scaled = np.array(intrinsics, np.float64)
    # the ratio first, as in the reference: K * S / W has another last bit in two of five cases
    scaled[0] *= image_size / width
    scaled[1] *= image_size / height
    return scaled


def encode_directions(directions: np.ndarray) -> np.ndarray:
    """The live columns of the sinusoidal encoding: direction, then sines, then cosines.

    The reference multiplies by `2 ** arange(127)` in int64, which overflows: frequency 63 is -2**63 and the other 63
    are 0, so that their sines are 0 and their cosines 1. Those constants belong to the projection's bias.
    Sines are computed once for each distinct value: directions have only 16 significant bits.

    Args:
        directions: [M, 3] float32 with bfloat16 values.

    Returns:
        [M, 387] float32: 3 directions, 3 x 64 sines, 3 x 64 cosines.
    """
    codes, inverse = np.unique(directions, return_inverse=True)
    frequencies = np.exp2(np.arange(LIVE_FREQUENCIES))
    frequencies[-1] *= -1
    # products with powers of two are exact; float32 sines of them would miss the last bit in one case of 20
    angles = codes.astype(np.float64)[:, None] * frequencies
    # NumPy 1 gives it flat, NumPy 2 in the shape of the directions
    inverse = inverse.reshape(directions.shape)

    encoded = np.empty((len(directions), LIVE_COLUMNS), np.float32)
    encoded[:, :3] = directions
    for part, table in enumerate((np.sin(angles), np.cos(angles))):
        waves = encoded[:, 3 + part * 3 * LIVE_FREQUENCIES :][:, : 3 * LIVE_FREQUENCIES]
        for axis in range(3):
            span = slice(axis * LIVE_FREQUENCIES, (axis + 1) * LIVE_FREQUENCIES)
            waves[:, span] = table.astype(np.float32)[inverse[:, axis]]
    return encoded


def _pixel_directions(
    columns: np.ndarray, rows: np.ndarray, rotation: np.ndarray, first_rotation: np.ndarray
) -> np.ndarray:
    """Unit directions of the pixels of some rows of a frame, [3, R, S]; an axis is a plane, so that work is contiguous.

    The ray through column i and row j is (columns[i], rows[j], 1); its products with the rotation are rounded one by
    one, which makes them functions of i and of j alone. Those with the first rotation are not rounded.
    """
    across = round_bf16(rotation[:, 0, None] * columns)
    down = round_bf16(rotation[:, 1, None] * rows)
    turned = across[:, None] + down[:, :, None]
    turned += rotation[:, 2, None, None]
    turned = round_bf16(turned)
    x, y, z = turned
    # the reference rounds the length before it divides by it, and has no epsilon here
    unit = round_bf16(turned / round_bf16(np.sqrt(x * x + y * y + z * z)))
    # the reference multiplies the row vector by the rotation, so its columns take the place of its rows
    return round_bf16(np.stack([unit[0] * a + unit[1] * b + unit[2] * c for a, b, c in first_rotation.T]))


@dataclass(frozen=True)
class PoolingBins:
    """Adaptive average pooling [S, S] -> [n, n] in the reference's order of additions.

    Attributes:
        places: [L*L, n*n] flat index of the k-th pixel of each bin, row by row; S*S past the end of a shorter bin.
        lengths: [n] float32, rows of a bin, and likewise its columns.
    """

    places: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, size: int, grid: int) -> "PoolingBins":
        """Bins floor(a*S/n)..ceil((a+1)*S/n) along both axes; they overlap where n does not divide S."""
        start = np.arange(grid) * size // grid
        count = -(-(np.arange(grid) + 1) * size // grid) - start
        step = np.arange(count.max())[:, None]
        line, inside = start + step, step < count
        flat = line[:, None, :, None] * size + line[None, :, None, :]
        flat = np.where(inside[:, None, :, None] & inside[None, :, None, :], flat, size * size)
        return cls(flat.reshape(len(step) ** 2, grid * grid), count.astype(np.float32))

    def average(self, planes: np.ndarray) -> np.ndarray:
        """Means [n, n, 3] of planes [3, S*S+1] whose last column is zero."""
        grid = len(self.lengths)
        # a running sum adds one pixel after the other, unlike sum(), and the zeros past a bin's end change nothing
        totals = [np.add.accumulate(plane[self.places])[-1] for plane in planes]
        total = np.stack(totals, axis=-1).reshape(grid, grid, 3)
        # PyTorch divides by the rows, then by the columns; dividing by their product changes one mean of five
        return total / self.lengths[:, None, None] / self.lengths[:, None]


# written out: `@` leaves the order of sums to BLAS, which may fuse them too, and changes a third of the results
def _matvec(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """`vectors @ matrix.T` in float32, summed from the first column on."""
    return vectors[..., 0:1] * matrix[:, 0] + vectors[..., 1:2] * matrix[:, 1] + vectors[..., 2:3] * matrix[:, 2]


def _matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A float32 product of 4x4 matrices, summed from the first column on."""
    return sum(left[:, k, None] * right[None, k] for k in range(4))


def _norm(vectors: np.ndarray) -> np.ndarray:
    """Euclidean length along the last axis, float32."""
    x, y, z = (vectors[..., axis] for axis in range(3))
    return np.sqrt(x * x + y * y + z * z)
