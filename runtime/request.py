"""What `stllm-run` does: its options to a session, the answer to stdout."""

import json
import sys
from pathlib import Path
from typing import Any

from .answer import Answer
from .bundle.files import atomic_path
from .errors import BadInput
from .inputs.clip import load_clip
from .inputs.scene import load_scene
from .options import Options
from .session import Session

__all__ = ["answer_question"]


def answer_question(values: dict[str, Any]) -> None:
    """Run one question; `values` are the options of `stllm-run` by name."""
    dump = values["dump"]
    if dump is not None and not dump.parent.is_dir():
        raise BadInput(f"--dump {dump}: the folder {dump.parent} does not exist")
    if dump is not None and dump.is_dir():
        raise BadInput(f"--dump {dump}: is a folder, expected the name of a .safetensors file")
    with Session(values["bundle"], Options.of(values)) as session:
        scene = load_scene(
            values["scene"],
            poses=values["poses"],
            intrinsics=values["intrinsics"],
            pose_convention=values["pose_convention"],
        )
        clip = load_clip(
            values["video"], fps=values["fps"], seconds=values["video_seconds"], first_frame=values["first_frame"]
        )
        answer = session.ask(
            scene,
            clip,
            values["question"],
            frames=values["frames"],
            time_instruction=values["time_instruction"],
            assistant_header=not values["bare_prompt"],
            max_new_tokens=values["max_new_tokens"],
            temperature=values["temperature"],
            seed=values["seed"],
        )
        for piece in answer:
            if not values["as_json"]:
                sys.stdout.write(piece)
                sys.stdout.flush()
        sys.stdout.write(json.dumps(report(session, answer), indent=1) + "\n" if values["as_json"] else "\n")
        if dump is not None:
            write_dump(dump, answer)


def report(session: Session, answer: Answer) -> dict[str, Any]:
    """Answer, counts and milliseconds."""
    return {
        "answer": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": len(answer.token_ids),
        "frames": len(answer.view.selection),
        "voxels": len(answer.view.voxels),
        "device": session.placement.name,
        "precision": session.precision,
        "quant": session.quant,
        "milliseconds": {stage: round(spent, 3) for stage, spent in answer.meter.milliseconds.items()},
        "peak_mb": {stage: round(peak / 1e6, 1) for stage, peak in answer.meter.peak_bytes.items()},
    }


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
