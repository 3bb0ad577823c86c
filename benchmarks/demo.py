"""The demo: a generated checkpoint to a bundle, and answers about a generated scene and about a real capture."""

import argparse
import shutil
from pathlib import Path

from .. import cli
from ..export.sample import write_sample
from .captures import write_arc2017
from .checkpoints import TINY, write_checkpoint

__all__ = ["main"]

QUESTION = "After finishing the action in the video, in which direction should the person turn to face the table?"


def main() -> None:
    """Build the bundle once and ask; every step prints the command that does the same."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for checkpoint, bundle and scenes")
    out: Path = parser.parse_args().out
    checkpoint, bundle = out / "checkpoint", out / "bundle"
    scenes = {"generated corridor": write_sample(out / "corridor"), "real RGB-D frame": write_arc2017(out / "arc2017")}

    if not (bundle / "manifest.json").exists():
        shutil.rmtree(bundle, ignore_errors=True)
        write_checkpoint(checkpoint, TINY)
        call("export", "all", "--ckpt", checkpoint, "--out", bundle, "--quant", "Q8_0")
    for (scene, video), frames in zip(scenes.values(), (4, 1), strict=True):
        options = ["--frames", frames, "--max-new-tokens", 24]
        call("run", "--bundle", bundle, "--scene", scene, "--video", video, "-q", QUESTION, *options)
    print("\nThe demo's weights are random: every stage above is the real one, the words mean nothing.")
    print("With a trained checkpoint, the same three commands answer about your scene.")


def call(command: str, *arguments: object) -> None:
    """Run a command in this process, after printing it."""
    words = [f'"{word}"' if " " in str(word) else str(word) for word in arguments]
    print(f"\n$ stllm-{command} {' '.join(words)}", flush=True)
    getattr(cli, command).main([str(argument) for argument in arguments], f"stllm-{command}", standalone_mode=False)


if __name__ == "__main__":
    main()
