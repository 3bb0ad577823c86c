"""One picture of what was understood: the cloud from above with the camera's way, and its points over frames."""

from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.files import atomic_path
from ..errors import BadInput
from ..libraries import load_library
from .colours import nearest_in_cells, project
from .fit import Fit
from .units import upwards

__all__ = ["write_picture"]

# pixels
MAP_SIDE, FRAME_WIDTH, MARGIN, LINE = 720, 480, 12, 16
# sides of a point on the map, and of one with its rim over a frame
DOT, RIM = 3, 5
WAY, VIEW, INK = (200, 30, 30), (240, 140, 20), (30, 30, 30)
MOST_POINTS, SHOWN = 200_000, 3
# of the map's side, how far a camera's view is drawn
REACH = 0.06
# a ceiling hides the room: points this share of the extent above the camera are left out, if others are left
ABOVE, LEFT = 0.08, 0.2


def write_picture(path: Path, fit: Fit) -> None:
    """Draw a fit as a PNG file; raises BadInput where it cannot be written."""
    if path.suffix.lower() != ".png":
        raise BadInput(f"--picture {path}: expected the name of a .png file")
    image = load_library("PIL.Image")
    places = np.linspace(0, len(fit.selection) - 1, min(SHOWN, len(fit.selection)))
    frames = [overlay(fit, int(place)) for place in places]
    from_above = draw_map(fit)
    height = max(from_above.height, sum(frame.height + LINE + MARGIN for frame in frames)) + 2 * MARGIN
    picture = image.new("RGB", (from_above.width + FRAME_WIDTH + 3 * MARGIN, height + LINE), "white")
    draw = load_library("PIL.ImageDraw").Draw(picture)
    draw.text((MARGIN, MARGIN), caption(fit), fill=INK)
    picture.paste(from_above, (MARGIN, MARGIN + LINE))
    top = MARGIN
    for place, frame in zip(places, frames, strict=True):
        name = fit.selection.clip.frames.name(fit.selection.indices[int(place)])
        left = from_above.width + 2 * MARGIN
        draw.text((left, top), Path(name).name, fill=INK)
        picture.paste(frame, (left, top + LINE))
        top += frame.height + LINE + MARGIN
    try:
        with atomic_path(path) as temporary:
            picture.save(temporary, format="PNG")
    except OSError as error:
        raise BadInput(f"--picture {path}: cannot be written ({error})") from None


def caption(fit: Fit) -> str:
    """What is told in one line."""
    share = fit.conventions[fit.convention].share
    return f"{len(fit.scene.points):,} points, poses as {fit.convention}, colours agree to {100 * max(share, 0):.0f} %"


def sampled(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """As many points and colours as are drawn."""
    step = max(1, len(fit.scene.points) // MOST_POINTS)
    return fit.scene.points[::step].astype(np.float64), fit.scene.colours[::step]


def axes_from_above(poses: np.ndarray) -> np.ndarray:
    """To the right, up the picture and towards the viewer, [3, 3], where cameras [T, 4, 4] are held upright."""
    up = upwards(poses)
    right = np.cross(np.eye(3)[np.abs(up).argmin()], up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(up, right), up])


def draw_map(fit: Fit) -> Any:
    """The cloud from above, the way of the camera and what it sees."""
    points, colours = sampled(fit)
    axes, poses = axes_from_above(fit.selection.poses), fit.selection.poses
    seen, way = points @ axes.T, poses[:, :3, 3] @ axes.T
    low, high = np.percentile(seen, (1, 99), axis=0)
    below = seen[:, 2] < way[:, 2].max() + ABOVE * float((high - low)[:2].max())
    if below.mean() > LEFT:
        seen, colours = seen[below], colours[below]
    corner, opposite = np.minimum(low, way.min(axis=0))[:2], np.maximum(high, way.max(axis=0))[:2]
    scale = MAP_SIDE / max(float((opposite - corner).max()), 1e-9) * 0.9
    width, height = (np.ceil((opposite - corner) * scale / 0.9).astype(int) + 2 * MARGIN).tolist()

    def at(places: np.ndarray) -> np.ndarray:
        """Pixels of places [..., 2 or 3]."""
        x, y = np.moveaxis((places[..., :2] - (corner + opposite) / 2) * scale, -1, 0)
        return np.stack([width / 2 + x, height / 2 - y], axis=-1)

    canvas = np.full((height, width, 3), 255, np.uint8)
    splat(canvas, at(seen), colours, np.argsort(seen[:, 2]))
    picture = load_library("PIL.Image").fromarray(canvas)
    draw = load_library("PIL.ImageDraw").Draw(picture)
    ends = corners_of_view(fit) @ axes.T
    for place, rays in zip(way, ends, strict=True):
        outline = [at(place), *at(place + rays * (REACH * MAP_SIDE / scale)), at(place)]
        draw.line([tuple(point) for point in outline], fill=VIEW, width=2)
    draw.line([tuple(point) for point in at(way)], fill=WAY, width=3)
    x, y = at(way)[0]
    draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=WAY)
    return picture


def corners_of_view(fit: Fit) -> np.ndarray:
    """Directions through the middles of the left and the right side of each frame, one unit deep, [T, 2, 3]."""
    width, height = fit.selection.clip.size
    sides = np.array([[0, height / 2, 1], [width, height / 2, 1]]) @ np.linalg.inv(fit.scene.intrinsics).T
    return np.asarray(np.einsum("tij,sj->tsi", fit.selection.poses[:, :3, :3], sides))


def overlay(fit: Fit, place: int) -> Any:
    """A frame with the nearest points over it, each in a dark rim: where all fits, their colours are hardly seen."""
    image, clip = load_library("PIL.Image"), fit.selection.clip
    (frame,) = clip.read([fit.selection.indices[place]])
    height = max(1, round(FRAME_WIDTH * clip.size[1] / clip.size[0]))
    canvas = np.array(image.fromarray(frame).resize((FRAME_WIDTH, height)))
    points, colours = sampled(fit)
    index, pixels, depth = project(points, fit.selection.poses[place], fit.scene.intrinsics, clip.size)
    shown = pixels * [FRAME_WIDTH / clip.size[0], height / clip.size[1]]
    nearest = nearest_in_cells(shown, depth, (FRAME_WIDTH, height))
    order = np.argsort(-depth[nearest])
    splat(canvas, shown[nearest] - 1, np.zeros_like(colours[index[nearest]]), order, RIM)
    splat(canvas, shown[nearest], colours[index[nearest]], order)
    return image.fromarray(canvas)


def splat(canvas: np.ndarray, pixels: np.ndarray, colours: np.ndarray, order: np.ndarray, side: int = DOT) -> None:
    """Draw points as small squares into [H, W, 3] uint8, in an order; those outside are left out."""
    for dy in range(side):
        for dx in range(side):
            x, y = (pixels[order] + [dx, dy]).astype(int).T
            inside = (x >= 0) & (y >= 0) & (x < canvas.shape[1]) & (y < canvas.shape[0])
            canvas[y[inside], x[inside]] = colours[order][inside].astype(np.uint8)
