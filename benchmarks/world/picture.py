"""A picture of a room from above, with a person's way through it and the item, and the frames below."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from ..rea.dataset import Sample
from .furniture import COLOURS, turned

__all__ = ["draw_clip"]

PIXELS_A_METRE = 90
MARGIN = 24
FRAMES_SHOWN = 4
INK, PATH, LOOK = (30, 30, 30), (20, 20, 20), 0.5


def draw_clip(sample: Sample, truth: Path, out: Path) -> None:
    """Draw the room and the clip of a sample of the small world.

    Args:
        sample: of the data set.
        truth: JSON file of its room, as `rea synth` writes it.
        out: PNG file.
    """
    room = json.loads(truth.read_text(encoding="utf-8"))
    act = next(clip for clip in room["clips"] if clip["query_start_frame"] == sample.start)
    poses = [np.loadtxt(sample.c2ws / f"{stem}.txt") for stem in sample.stems]
    width, depth = (round(side * PIXELS_A_METRE) + 2 * MARGIN for side in room["size"])
    frames = frame_strip(sample, width)
    picture = Image.new("RGB", (width, depth + frames.height), "white")
    draw = ImageDraw.Draw(picture)

    def at(points: ArrayLike) -> list[tuple[float, float]]:
        """Places in the room [P, 2] as pixels; y points up."""
        return [(MARGIN + x * PIXELS_A_METRE, depth - MARGIN - y * PIXELS_A_METRE) for x, y in np.asarray(points)]

    draw.rectangle((MARGIN, MARGIN, width - MARGIN, depth - MARGIN), outline=INK, width=3)
    for piece in room["furniture"]:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array(piece["size"][:2]) / 2
        outline = corners @ turned(piece["yaw"])[:2, :2].T + piece["centre"]
        draw.polygon(at(outline), fill=COLOURS[piece["colour"]], outline=INK)
        draw.text(
            at([piece["centre"]])[0], piece["kind"], fill="black", anchor="mm", stroke_width=2, stroke_fill="white"
        )
        if piece["name"] == act["target"]:
            (x, y), reach = at([piece["centre"]])[0], 14
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline="black", width=3)
            draw.text((x, y + reach + 8), act["item"], fill="black", anchor="mm", stroke_width=2, stroke_fill="white")
    places = np.array([pose[:2, 3] for pose in poses])
    draw.line(at(places), fill=PATH, width=3)
    for pose, label in ((poses[0], "start"), (poses[-1], "end")):
        place, ahead = pose[:2, 3], pose[:2, 2] / np.linalg.norm(pose[:2, 2])
        tip, left, right = place + LOOK * ahead, *(place + 0.12 * side * ahead[::-1] * [1, -1] for side in (1, -1))
        draw.polygon(at(np.array([tip, left, right])), fill=PATH)
        draw.text(at([place])[0], label, fill="white", anchor="mm", stroke_width=2, stroke_fill="black")
    picture.paste(frames, (0, depth))
    picture.save(out)


def frame_strip(sample: Sample, width: int) -> Image.Image:
    """Some frames of a clip side by side."""
    chosen = [sample.stems[int(place)] for place in np.linspace(0, len(sample.stems) - 1, FRAMES_SHOWN)]
    frames = [Image.open(sample.video / f"{stem}.jpg") for stem in chosen]
    side = width // FRAMES_SHOWN
    height = round(side * frames[0].height / frames[0].width)
    strip = Image.new("RGB", (width, height), "white")
    for place, frame in enumerate(frames):
        strip.paste(frame.resize((side, height)), (place * side, 0))
    return strip
