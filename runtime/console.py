"""What all commands share: options, errors as one line, logging and progress on stderr, peak memory."""

import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from .errors import StllmError
from .libraries import being_imported, does_not_load, tells_of_wrong_cpu
from .memory.counters import highest_peak

__all__ = [
    "FOLDER",
    "Progress",
    "Share",
    "bag_options",
    "gathered",
    "logging_options",
    "options",
    "peak_memory",
    "reports_errors",
    "reuse_options",
    "session_options",
    "view_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])
USAGE_ERROR = 2
# what a device goes without: the server's commands import it
EXPORT_PACKAGES = {"torch", "transformers", "tokenizers", "onnx", "onnx_ir", "onnxscript", "gguf"}
FOLDER = click.Path(path_type=Path)
# a bar that would be gone at once is not shown
BAR_DELAY = 1.0


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order given."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def reports_errors(command: Command) -> Command:
    """Print an error that the user can mend as one line and leave with status 2."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, verbose: bool = False, quiet: bool = False, **values: Any) -> Any:
        level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
        with logging_to_stderr(level), tells_of_wrong_cpu(click.get_current_context().command_path):
            try:
                return command(*arguments, quiet=quiet, **values)
            except StllmError as error:
                refuse(str(error))
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] not in EXPORT_PACKAGES:
                    raise
                refuse(f"{error.name} is not installed; pip install 'stllm-edge[export]'")
            except Exception as error:
                if (library := being_imported(error)) is None:
                    raise
                refuse(str(does_not_load(library, error)))

    return wrapped  # type: ignore[return-value]


def refuse(reason: str) -> NoReturn:
    """Print one line that begins with the command, and leave."""
    click.echo(f"{click.get_current_context().command_path}: {' '.join(reason.split())}", err=True)
    sys.exit(USAGE_ERROR)


@contextmanager
def logging_to_stderr(level: int) -> Iterator[None]:
    """Send the package's log to stderr, for as long as a command runs."""
    logger = logging.getLogger("stllm_edge")
    before = logger.handlers[:], logger.propagate, logger.level
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before[:2]
        logger.setLevel(before[2])


logging_options = options(
    click.option("-v", "--verbose", is_flag=True, help="Log every decision, and what libllama says."),
    click.option("--quiet", is_flag=True, help="No progress and no notices on stderr; warnings stay."),
)


def gathered(kind: type, name: str) -> Callable[[Command], Command]:
    """The options that are fields of a dataclass reach the command as one argument of that type."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*arguments: Any, **values: Any) -> Any:
            return command(*arguments, **{name: taken(kind, values)}, **values)

        return wrapped  # type: ignore[return-value]

    return decorate


def taken(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass of the values that are its fields, or those of a dataclass among its fields; they are removed."""
    return kind(
        **{field.name: values.pop(field.name) for field in fields(kind) if field.name in values},
        **{field.name: taken(field.type, values) for field in fields(kind) if is_dataclass(field.type)},
    )


session_options = options(
    click.option("--precision", help="Encoders: fp32, fp16, int8 or a mix; by default fp32 where held."),
    click.option("--quant", help="Language model; by default the smallest that the bundle holds."),
    click.option("-n", "--max-new-tokens", type=int, default=256, show_default=True, help="Longest answer."),
    click.option("-f", "--frames", type=int, help="Frames to sample; by default the bundle's number."),
    click.option("--threads", type=int, help="CPU threads; by default all cores."),
    click.option("--kv", default="f16", show_default=True, help="Type of keys and values: f16, q8_0 or f32."),
    click.option("--flash-attention/--no-flash-attention", default=None, help="By default libllama decides."),
    click.option(
        "--packed/--mapped", default=None, help="Weights for the CPU: a copy, or the file; by default measured."
    ),
    click.option("--micro-batch", type=int, help="Positions of a prompt evaluated at once; by default measured."),
    click.option(
        "--measure/--no-measure", default=True, help="Measure once what is left open of these, and remember it."
    ),
    click.option("--device", default="auto", show_default=True, help="Of the encoders: auto, cpu, cuda or tensorrt."),
    click.option("--strict", is_flag=True, help="Fail rather than run elsewhere than on that device."),
    click.option(
        "--gpu-layers", type=int, help="Layers of the language model on the GPU; by default all, none on cpu."
    ),
    click.option("--adapter", type=FOLDER, help="LoRA adapter for the language model, as GGUF."),
    click.option("--check-digests", is_flag=True, help="Hash the bundle's files even if they look unchanged."),
)


class Share(click.ParamType):
    """A share of 1, as 15% or 0.15."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{value!r} is no share; write 15%", param, ctx)


reuse_options = options(
    click.option(
        "--reuse-video",
        metavar="approximate",
        help="Keep the video's keys and values for further questions about it: quicker, and inexact.",
    ),
    click.option("--recompute", type=Share(), help="Share of the video that is read again all the same, as 15%."),
)


view_options = options(
    click.option("--poses", type=FOLDER, help="Folder of 4x4 pose files; by default in the scene folder."),
    click.option("--intrinsics", type=FOLDER, help="3x3 intrinsics file; by default K.txt in the scene folder."),
    click.option("--intrinsics-of", metavar="WxH", help="Frames that the intrinsics are of; 1x1 for shares; or auto."),
    click.option(
        "--cameras", type=FOLDER, help="Poses and intrinsics in one: COLMAP, nerfstudio, EPIC-Fields, TUM, EuRoC."
    ),
    click.option(
        "--pose-convention",
        default="c2w",
        show_default=True,
        help="How poses are meant: c2w, w2c (OpenCV axes), c2w-opengl, w2c-opengl, c2w-body; auto tells by the frames.",
    ),
    click.option("--scale", help="Metres a unit of cloud and poses, as 0.001; of each, as 0.001,1; or auto."),
    click.option("--crop", type=float, help="Leave out points further than so many metres from the cloud's middle."),
    click.option(
        "--glb", default="all", show_default=True, help="Geometries of a GLB: all, or the first as it is stored."
    ),
    click.option(
        "--depth-scale", type=float, default=1000.0, show_default=True, help="Numbers a metre in depth frames."
    ),
    click.option("--fps", type=float, help="Frames a second; by default from clip.json, names or the video file."),
    click.option("--video-seconds", type=float, help="Length of the clip; by default its frames over fps."),
    click.option(
        "--first-frame", type=int, default=0, show_default=True, help="Number of the first frame; 1 for EPIC."
    ),
)

bag_options = options(
    click.option("--bag", type=FOLDER, help="Recording of a robot: ROS 1 or ROS 2 bag, or MCAP; see bag-info."),
    click.option("--image-topic", help="Images; this and what follows by default the only ones in the recording."),
    click.option("--info-topic", help="CameraInfo of the images; by default the one beside them."),
    click.option("--cloud-topic", help="PointCloud2 with colours; --scene FILE takes another cloud."),
    click.option("--pose-topic", help="TF, odometry or stamped poses; by default TF where it moves the camera."),
    click.option("--camera-frame", help="The camera's optical frame; by default that of the images."),
    click.option("--pose-frame", help="What the poses are of; by default their child frame, or the camera."),
    click.option("--map-frame", help="Frame of cloud and poses; by default the clouds', map, or the outermost."),
    click.option(
        "--clouds", default="auto", show_default=True, help="Of several: all in one, the first, the last, or a place."
    ),
    click.option("--from", "begin", type=float, help="Begin of the clip, seconds since the recording's."),
    click.option("--to", "end", type=float, help="End of the clip, seconds since the recording's begin."),
)


@contextmanager
def peak_memory(quiet: bool) -> Iterator[None]:
    """Print the most that was resident, with an encoder's process if one was at work, once the work is done.

    Where the kernel does not count it, there is no line.
    """
    yield
    if not quiet and (peak := highest_peak()):
        click.echo(f"peak memory {peak / 1e6:.0f} MB", err=True)


class Progress:
    """Bars and stage lines; silent when quiet or when stderr is not a terminal."""

    def __init__(self, quiet: bool = False):
        self._shown = not quiet and sys.stderr.isatty()

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar over `total` units, shown once it has run for a second; yields a function that advances it."""
        if not self._shown:
            yield lambda amount: None
            return
        from rich.console import Console
        from rich.progress import Progress as Bars

        start = time.monotonic()
        with Bars(console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(title, total=total, visible=False)

            def advance(amount: int) -> None:
                bars.update(task, advance=amount, visible=time.monotonic() - start > BAR_DELAY)

            yield advance

    @contextmanager
    def stage(self, title: str) -> Iterator[Callable[[str], None]]:
        """A spinner for work of unknown length; yields a function that changes its title, or hides it without one."""
        if not self._shown:
            yield lambda title: None
            return
        from rich.console import Console

        with Console(stderr=True).status(title) as status:

            def show(title: str) -> None:
                status.update(title)
                # text that is printed beside a spinner would be wiped out with it
                (status.start if title else status.stop)()

            yield show
