"""One question of `stllm-run`: files and options in, the answer to stdout."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from .answer import Answer
from .bundle.files import atomic_path
from .errors import BadInput
from .inputs.cameras.reading import load_cameras
from .inputs.clip import Clip, load_clip
from .inputs.matching import match_cameras, sized_intrinsics
from .inputs.scene import Scene, load_scene
from .options import Options, Request
from .session import Session

__all__ = ["answer_request"]


def answer_request(bundle: Path, request: Request, options: Options, *, as_json: bool, dump: Path | None) -> None:
    """Print the answer as it comes, or a report at its end.

    Args:
        bundle: the bundle's folder.
        request: the question.
        options: how to run.
        as_json: print answer, counts, milliseconds and peak memory as one JSON object.
        dump: a .safetensors file for the arrays of all stages.
    """
    require_writable(dump)
    with Session(bundle, options) as session:
        session.prepare()
        with ask(session, request) as answer:
            for piece in answer:
                if not as_json:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            sys.stdout.write(json.dumps(report(session, answer), indent=1) + "\n" if as_json else "\n")
            if dump is not None:
                write_dump(dump, answer)


def ask(session: Session, request: Request) -> Answer:
    """Read scene and clip and begin the answer; raises BadInput where a file is not what it has to be."""
    scene, clip = read(request)
    return session.ask(
        scene,
        clip,
        request.question,
        frames=request.frames,
        time_instruction=request.time_instruction,
        assistant_header=not request.bare_prompt,
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        seed=request.seed,
    )


def read(request: Request) -> tuple[Scene, Clip]:
    """Scene and clip of a request; raises BadInput where a file is not what it has to be."""
    clip = load_clip(request.video, fps=request.fps, seconds=request.video_seconds, first_frame=request.first_frame)
    scene_of = partial(load_scene, request.scene, crop=request.crop, glb=request.glb, depth_scale=request.depth_scale)
    file = request.intrinsics or request.scene / "K.txt"
    if request.cameras is None:
        intrinsics = sized_intrinsics(file, request.intrinsics_of, clip.size) if request.intrinsics_of else None
        given = intrinsics if intrinsics is not None else request.intrinsics
        convention = request.pose_convention
        scene = scene_of(poses=request.poses, intrinsics=given, pose_convention=convention, clip=clip)
        return scene, clip
    if request.poses is not None:
        raise BadInput("--cameras and --poses are both given; give the one that the poses come from")
    cameras = load_cameras(request.cameras, pose_convention=request.pose_convention, cloud=request.scene)
    matched = match_cameras(cameras, clip, straight=request.intrinsics is not None)
    intrinsics = matched.intrinsics
    if intrinsics is None:
        if request.intrinsics is None and not file.is_file():
            raise BadInput(f"{matched.source}: holds no intrinsics of the frames; give --intrinsics FILE with it")
        intrinsics = sized_intrinsics(file, request.intrinsics_of, clip.size)
    elif request.intrinsics_of is not None:
        raise BadInput(f"--intrinsics-of {request.intrinsics_of}: {matched.source} says what its intrinsics belong to")
    return scene_of(poses=matched.poses, intrinsics=intrinsics, clip=matched.clip), matched.clip


def report(session: Session, answer: Answer) -> dict[str, Any]:
    """Answer, counts, choices, milliseconds and peak memory, as JSON takes them."""
    return {
        "answer": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": len(answer.token_ids),
        "frames": len(answer.view.selection),
        "voxels": len(answer.view.voxels),
        "device": session.setup.placement.name,
        "precision": session.setup.precision,
        "quant": session.setup.quant,
        "milliseconds": {stage: round(spent, 3) for stage, spent in answer.meter.milliseconds.items()},
        "peak_mb": {stage: round(peak / 1e6, 1) for stage, peak in answer.meter.peak_bytes.items()},
    }


def require_writable(dump: Path | None) -> None:
    """Raise BadInput unless a dump can be written where it is wanted."""
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
