"""Questions of `stllm-run`: files and options in, answers to stdout."""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .answer import Answer
from .bundle.files import atomic_path
from .bundle.manifest import Bundle
from .console import Progress
from .control.events import Event, Listener, StageStarted, Text
from .errors import BadInput
from .fit.fit import Fit, examine
from .fit.picture import write_picture
from .fit.reading import Reading
from .inputs.cameras import load_intrinsics
from .inputs.cameras.reading import load_cameras
from .inputs.clip import Clip, load_clip
from .inputs.matching import match_cameras
from .inputs.recordings.reading import load_recording
from .inputs.scene import Scene, load_scene
from .inputs.selection import select_frames, upright
from .options import Options, Recording, Request
from .session import Session

__all__ = ["answer_request", "check_recording", "listener", "read", "read_questions", "report", "tell_end"]

LOG = logging.getLogger(__name__)

# frames that are looked at where no bundle says how many
FRAMES = 32


def answer_request(
    bundle: Path,
    recording: Recording,
    request: Request,
    options: Options,
    questions: Sequence[str],
    *,
    as_json: bool,
    dump: Path | None,
    quiet: bool = False,
) -> None:
    """Print answers as they come, or a report of each at its end.

    Args:
        bundle: the bundle's folder.
        recording: scene and clip.
        request: how each question is answered.
        options: how to run.
        questions: about the scene and the clip, each by itself.
        as_json: print answer, counts, milliseconds and peak memory as a JSON object, of several questions one a line.
        dump: a .safetensors file for the arrays of all stages.
        quiet: show no progress.
    """
    require_writable(dump, questions)
    require_several(options, questions)
    recording.check()
    for question in questions:
        request.about(question).check()
    # of a single question, nothing is asked for again
    options = options if len(questions) > 1 else replace(options, cache_memory=0)
    with Session(bundle, options) as session:
        session.prepare()
        asked = answers(session, recording, request, questions, quiet)
        for question, answer in zip(questions, asked, strict=True):
            for piece in answer:
                if not as_json:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            told = report(session, answer)
            line = json.dumps(told, indent=1) if len(questions) == 1 else json.dumps({"question": question, **told})
            sys.stdout.write(line + "\n" if as_json else "\n")
            sys.stdout.flush()
            tell_end(answer)
            if dump is not None:
                write_dump(dump, answer)


def answers(
    session: Session, recording: Recording, request: Request, questions: Sequence[str], quiet: bool = False
) -> Iterator[Answer]:
    """Read scene and clip, look once, and begin the answers; raises BadInput where a file is not what it has to be."""
    reading = Reading.of(recording.scale, recording.intrinsics_of)
    scene, clip = read(recording)
    with Progress(quiet).stage("loading") as show:
        listen, how = listener(show), request.how()
        with session.ask(scene, clip, questions[0], reading=reading, listen=listen, **how) as first:
            yield first
        for question in questions[1:]:
            with session.answer(first.view.again(), question, listen=listen, **how) as answer:
                yield answer


def listener(show: Callable[[str], None]) -> Listener:
    """Shows the stage that is at work, and nothing once there is text."""

    def listen(event: Event) -> None:
        if isinstance(event, StageStarted):
            show(event.stage)
        elif isinstance(event, Text):
            show("")

    return listen


def tell_end(answer: Answer) -> None:
    """Say why an answer ended, where it did not end by itself."""
    if answer.ended == "time":
        LOG.warning("the answer ends here, since the time (--max-time) is over")
    if answer.ended == "length":
        LOG.info("the answer ends here, after %d tokens (--max-new-tokens)", len(answer.token_ids))


def read_questions(questions: Sequence[str], file: Path | None) -> list[str]:
    """Questions from the options and from a file, one a line; `-` is standard input.

    Raises:
        BadInput: the file cannot be read or holds none.
    """
    if file is None:
        return list(questions)
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--questions {file}: cannot be read ({error})") from None
    held = [line.strip() for line in text.splitlines() if line.strip()]
    if not held:
        raise BadInput(f"--questions {file}: holds no question; write one a line")
    return [*questions, *held]


def read(recording: Recording) -> tuple[Scene, Clip]:
    """Scene and clip from their files; raises BadInput where one is not given, or is not what it has to be."""
    recording.check()
    if recording.bag is not None:
        return read_bag(recording.bag, recording)
    # both are given where there is no bag
    assert recording.scene is not None
    assert recording.video is not None
    clip = load_clip(
        recording.video, fps=recording.fps, seconds=recording.video_seconds, first_frame=recording.first_frame
    )
    scene_of = partial(
        load_scene, recording.scene, crop=recording.crop, glb=recording.glb, depth_scale=recording.depth_scale
    )
    file = recording.intrinsics or recording.scene / "K.txt"
    if recording.cameras is None:
        given, convention = recording.intrinsics, recording.pose_convention
        scene = scene_of(poses=recording.poses, intrinsics=given, pose_convention=convention, clip=clip)
        return scene, clip
    if recording.poses is not None:
        raise BadInput("--cameras and --poses are both given; give the one that the poses come from")
    cameras = load_cameras(recording.cameras, pose_convention=recording.pose_convention, cloud=recording.scene)
    matched = match_cameras(cameras, clip, straight=recording.intrinsics is not None)
    intrinsics = matched.intrinsics
    if intrinsics is None:
        if recording.intrinsics is None and not file.is_file():
            raise BadInput(f"{matched.source}: holds no intrinsics of the frames; give --intrinsics FILE with it")
        intrinsics = load_intrinsics(file)
    elif recording.intrinsics_of is not None:
        raise BadInput(
            f"--intrinsics-of {recording.intrinsics_of}: {matched.source} says what its intrinsics belong to"
        )
    return scene_of(poses=matched.poses, intrinsics=intrinsics, clip=matched.clip), matched.clip


def read_bag(bag: Path, recording: Recording) -> tuple[Scene, Clip]:
    """Scene and clip of a robot's recording; raises as `read`."""
    return load_recording(
        bag,
        recording.bag_choices,
        scene=recording.scene,
        intrinsics=recording.intrinsics,
        pose_convention=recording.pose_convention,
        crop=recording.crop,
        glb=recording.glb,
    )


def check_recording(recording: Recording, bundle: Path | None, frames: int | None, picture: Path | None) -> Fit:
    """What is understood of a scene and a clip, without a question.

    Args:
        recording: files and how they are meant.
        bundle: whose number of frames and voxels count, if there is one.
        frames: how many to look at; None takes the bundle's number, or as many as have a pose up to 32.
        picture: a .png file to draw it to.
    """
    reading = Reading.of(recording.scale, recording.intrinsics_of)
    defaults = Bundle(bundle).defaults if bundle else None
    scene, clip = read(recording)
    scene = upright(scene, clip)
    count = defaults.frames if defaults else min(FRAMES, len(clip.frames.posed(scene.poses)))
    selection = select_frames(clip, scene.poses, frames=frames, default=count, offset=scene.offset)
    voxel_size = defaults.voxel_size if defaults else None
    fit = examine(scene, selection, reading, voxel_size=voxel_size, thorough=True)
    if picture is not None:
        write_picture(picture, fit)
    return fit


def report(session: Session, answer: Answer) -> dict[str, Any]:
    """Answer, counts, choices, milliseconds and peak memory, as JSON takes them."""
    return {
        "answer": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": len(answer.token_ids),
        "ended": answer.ended,
        "frames": len(answer.view.selection),
        "voxels": len(answer.view.voxels),
        "device": session.setup.placement.name,
        "precision": session.setup.precision,
        "quant": session.setup.quant,
        "language_model": session.stages.pace.to_json() if session.stages.pace else {},
        "inputs": answer.view.fit.summary() if answer.view.fit else {},
        **({"approximate": answer.approximate} if answer.approximate else {}),
        "cache": answer.meter.reused,
        "milliseconds": {stage: round(spent, 3) for stage, spent in answer.meter.milliseconds.items()},
        "peak_mb": {stage: round(peak / 1e6, 1) for stage, peak in answer.meter.peak_bytes.items()},
    }


def require_several(options: Options, questions: Sequence[str]) -> None:
    """Raise BadInput where what is for further questions is asked for with one."""
    if options.reuse_video is not None and len(questions) == 1:
        raise BadInput(f"--reuse-video {options.reuse_video}: is for further questions, one is asked; leave it out")


def require_writable(dump: Path | None, questions: Sequence[str]) -> None:
    """Raise BadInput unless a dump can be written where it is wanted."""
    if dump is not None and len(questions) > 1:
        raise BadInput(f"--dump {dump}: holds the stages of one question, {len(questions)} are asked; ask one")
    if dump is not None and not dump.parent.is_dir():
        raise BadInput(f"--dump {dump}: the folder {dump.parent} does not exist")
    if dump is not None and dump.is_dir():
        raise BadInput(f"--dump {dump}: is a folder, expected the name of a .safetensors file")


def write_dump(path: Path, answer: Answer) -> None:
    """All stages as one safetensors file."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with atomic_path(path) as temporary:
            save_file({name: np.ascontiguousarray(values) for name, values in answer.stages().items()}, temporary)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"--dump {path}: cannot be written ({error})") from None
