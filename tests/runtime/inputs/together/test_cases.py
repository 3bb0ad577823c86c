"""Inputs as users have them, through the whole of stllm-run: right, or told."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Options, Session
from stllm_edge.runtime.options import Recording, Request
from stllm_edge.runtime.request import answers

CASES = Path(__file__).resolve().parents[5] / "shared" / "cases"
needs_cases = pytest.mark.skipif(
    not CASES.is_dir(), reason=f"needs cases from the field, which are kept outside of this repository: {CASES}"
)
PLACE = CASES / "room"
ROOM = Recording(PLACE / "cloud.ply", PLACE / "video", PLACE / "poses", PLACE / "K.txt", first_frame=1)


@dataclass(frozen=True)
class Case:
    """What is given in place of the room's own, and what has to come of it.

    Attributes:
        files: by option, relative to the case's folder.
        options: that are no files.
        refused: words of the line that it is refused with; empty where an answer comes.
        told: words of the only warning; empty where there is none.
        frames: numbers of the room's frames that the model sees.
        times: of these, where the prompt states them.
        voxels: least share of the room's voxels that are in place.
        degrees: largest angle between rays of frames, or directions to points.
        like: folder of frames that are the same, where they are not the room's; empty where no other has them.
    """

    files: dict[str, str]
    options: dict[str, Any]
    refused: str = ""
    told: str = ""
    frames: tuple[int, ...] = (1, 4, 8, 12)
    times: tuple[float, ...] = ()
    voxels: float = 1.0
    degrees: float = 0.05
    like: str | None = None


def case(files: str, refused: str = "", *, told: str = "", options: dict[str, Any] | None = None, **right: Any) -> Case:
    pairs = dict(pair.split("=") for pair in files.split())
    return Case(pairs, options or {}, refused, told, **right)


OWN = "poses=poses video=video"
FILM = "poses=poses intrinsics=K-of-192x144.txt video=video.mp4"
FROM_0 = {"first_frame": 0}
TABLE = {
    "01-frame-order-by-last-digits/timestamps": case(OWN, options=FROM_0),
    "01-frame-order-by-last-digits/camera": case(OWN, options=FROM_0),
    "02-one-image-without-number/thumbnail": case(OWN, told="left out, 1 (thumbnail.jpg)"),
    "06-glb-node-transform/translated": case("scene=cloud.glb"),
    "07-glb-several-geometries/two_chunks": case("scene=cloud.glb"),
    "08-units-mm-cm-sfm/millimetres": case("scene=cloud.ply poses=poses", "these look like millimetres.*--scale 0.001"),
    "09-pose-axes-misread/opengl": case("poses=poses", "fit the frames as c2w-opengl.*--pose-convention c2w-opengl"),
    "10-intrinsics-of-another-image/normalised": case("intrinsics=K.txt", "in shares of a frame.*--intrinsics-of 1x1"),
    "10-intrinsics-of-another-image/double": case("intrinsics=K.txt", "frames of about 192x144.*--intrinsics-of 192x"),
    "11-video-rotation/quarter_turn": case(FILM, like="room/video"),
    "12-exif-orientation/orientation_6": case("video=video", like="room/video"),
    "13-png-16-bit/grey": case("video=video", like="13-png-16-bit/grey/plain"),
    "14-stray-points/far": case("scene=cloud.ply", told="--crop 4 leaves out the points far off", voxels=0, degrees=90),
    "15-map-coordinates-double/national_grid": case("scene=cloud.ply poses=poses", voxels=0.9, degrees=1),
    "17-glb-compressed/draco_placeholder": case("scene=cloud.glb", "compressed with Draco"),
    "19-names-match-in-part/padded": case(OWN),
    "19-names-match-in-part/video_from_1": case(FILM, told="--first-frame N", options=FROM_0, frames=(), like=""),
    "20-other-image-types-left-out/half_webp": case("video=video", like="room/video"),
    "21-colours-0-to-1/ply": case("scene=cloud.ply"),
    "24-one-file-stops-all/pose_infinite": case("poses=poses", told="1 of 4 poses cannot be used", frames=()),
    "24-one-file-stops-all/apple_pose": case("poses=poses"),
    "24-one-file-stops-all/readme": case("poses=poses"),
    "24-one-file-stops-all/bom": case("poses=poses"),
    "24-one-file-stops-all/three_decimals": case("poses=poses", degrees=1),
    "25-video-without-keyframe/cut": case(
        FILM.replace("video.mp4", "cut.mkv"),
        told="begins without a keyframe; 18 frames",
        options=FROM_0,
        frames=(),
        like="",
    ),
    "25-video-without-keyframe/not_closed": case(FILM, r"was not closed.*index \(moov\) is missing"),
    "27-cloud-messages/uint16": case("scene=cloud.ply"),
    "27-cloud-messages/diffuse": case("scene=cloud.ply"),
    "27-cloud-messages/nan": case(
        "scene=cloud.ply", told="80 of 4000 points have coordinates that are NaN", voxels=0.97
    ),
    "27-cloud-messages/comment_utf8": case("scene=cloud.ply"),
    "29-times-of-frames/variable_rate": case(FILM, times=(0, 0.3, 1.6, 6.0), like="room/video"),
    "29-times-of-frames/names_as_times": case(
        OWN, told="hold no frame numbers", options={"first_frame": 0, "fps": 15.0}, times=(0, 1 / 15, 2 / 15, 3 / 15)
    ),
    "99-stays-right/ply_big_endian": case("scene=cloud.ply"),
    "99-stays-right/ply_header_crlf": case("scene=cloud.ply"),
    "99-stays-right/glb_uint16": case("scene=cloud.glb", voxels=0.999),
    "99-stays-right/poses_4_decimals": case("poses=poses", degrees=1),
    "99-stays-right/natural_order": case(OWN),
    "99-stays-right/bt709": case(FILM, options=FROM_0, like="99-stays-right/bt709/plain"),
    "99-stays-right/bt709_10_bit": case(FILM, options=FROM_0, like="99-stays-right/bt709_10_bit/plain"),
}


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Iterator[Session]:
    with Session(tiny_bundle, Options(quant="F32", resident=True, threads=1)) as session:
        yield session


def asked(
    session: Session, recording: Recording, timed: bool = False, frames: int | None = 4
) -> tuple[dict[str, np.ndarray], Any]:
    """What the model gets, and which frames."""
    request = Request(frames=frames, time_instruction=timed, max_new_tokens=1)
    for answer in answers(session, recording, request, ["Where is the book?"], quiet=True):
        list(answer)
        found = dict(answer.stages()), answer.view.selection
    return found


@pytest.fixture(scope="module")
def right(session: Session) -> dict[str, np.ndarray]:
    return asked(session, ROOM)[0]


def angle(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest between directions [..., 3], degrees."""
    a, b = (rays / np.linalg.norm(rays, axis=-1, keepdims=True) for rays in (ours.astype(float), theirs.astype(float)))
    return float(np.degrees(2 * np.arcsin(np.linalg.norm(a - b, axis=-1).max() / 2)))


def in_place(arrays: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> tuple[float, float]:
    """Share of the room's voxels that are in place, and the largest angle between directions to them."""
    ours, theirs = (
        dict(zip(map(tuple, side["voxel_coords"].tolist()), side["pcd_viewdirs"], strict=True))
        for side in (arrays, right)
    )
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return 0.0, 0.0
    pairs = (np.array([side[key] for key in common]) for side in (ours, theirs))
    return len(common) / max(len(ours), len(theirs)), angle(*pairs)


@needs_cases
@pytest.mark.parametrize("name", TABLE)
def test_right_or_told(name: str, session: Session, right: dict[str, np.ndarray], caplog: Any) -> None:
    found = TABLE[name]
    recording = replace(ROOM, **{option: CASES / name / file for option, file in found.files.items()}, **found.options)
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        if found.refused:
            with pytest.raises(BadInput, match=found.refused) as caught:
                asked(session, recording)
            assert "\n" not in str(caught.value)
            return
        arrays, selection = asked(session, recording, bool(found.times), 4 if found.frames else None)
    if found.frames:
        assert [found.told in entry.getMessage() for entry in caplog.records] == [True] * bool(found.told)
    assert found.told in caplog.text
    share, degrees = in_place(arrays, right)
    assert share >= found.voxels
    assert degrees <= found.degrees
    if found.times:
        assert selection.timing()[1] == pytest.approx(found.times, abs=1e-3)
    if found.frames:
        assert angle(arrays["img_rays_pooled"], right["img_rays_pooled"]) <= found.degrees
    if found.like is None and found.frames:
        assert np.array_equal(arrays["video_tokens"], right["video_tokens"])
    elif found.like:
        plain, _ = asked(session, replace(ROOM, video=CASES / found.like))
        apart = np.linalg.norm(arrays["video_tokens"] - plain["video_tokens"])
        assert apart <= 0.05 * np.linalg.norm(plain["video_tokens"])


@needs_cases
def test_a_clean_room_is_without_a_word(session: Session, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        asked(session, ROOM)
    assert caplog.records == []
