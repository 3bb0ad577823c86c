"""Options of stllm-run: a question about a scene and a clip."""

from pathlib import Path

import click

from .console import FOLDER, gathered, logging_options, reports_errors, session_options
from .options import Options, Request

__all__ = ["run"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stllm-edge")
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder.")
@click.option(
    "-s", "--scene", type=FOLDER, required=True, help="Scene folder, or point cloud: ply, glb, pcd, las, npy, text."
)
@click.option("--poses", type=FOLDER, help="Folder of 4x4 pose files; by default in the scene folder.")
@click.option("--intrinsics", type=FOLDER, help="3x3 intrinsics file; by default K.txt in the scene folder.")
@click.option("--intrinsics-of", metavar="WxH", help="Size of the images that it belongs to, if not the frames'.")
@click.option(
    "--cameras", type=FOLDER, help="Poses and intrinsics in one: COLMAP, nerfstudio, EPIC-Fields, TUM, EuRoC."
)
@click.option(
    "--pose-convention",
    default="c2w",
    show_default=True,
    help="How poses are meant: c2w, w2c (OpenCV axes), c2w-opengl, w2c-opengl.",
)
@click.option("--crop", type=float, help="Leave out points further than so many metres from the cloud's middle.")
@click.option("--glb", default="all", show_default=True, help="Geometries of a GLB: all, or the first as it is stored.")
@click.option("--depth-scale", type=float, default=1000.0, show_default=True, help="Numbers a metre in depth frames.")
@click.option("-V", "--video", type=FOLDER, required=True, help="Folder of jpg or png frames, or a video file.")
@click.option("--fps", type=float, help="Frames a second; by default from clip.json or the video file.")
@click.option("--video-seconds", type=float, help="Length of the clip; by default its frames over fps.")
@click.option("--first-frame", type=int, default=0, show_default=True, help="Number of the first frame; 1 for EPIC.")
@click.option("-q", "--question", required=True, help="What to ask.")
@session_options
@click.option("-t", "--temperature", type=float, default=0.0, show_default=True, help="0 takes the best token.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws above temperature 0.")
@click.option("--time-instruction/--no-time-instruction", default=None, help="By default as the bundle records it.")
@click.option("--bare-prompt", is_flag=True, help="Leave out the assistant's header; the model writes it itself.")
@click.option("--resident/--no-resident", help="Keep the stages loaded in this process: takes more memory.")
@click.option("--dump", type=FOLDER, help="Write the arrays of all stages to a .safetensors file.")
@click.option("--json", "as_json", is_flag=True, help="Print answer, token counts and milliseconds as JSON.")
@logging_options
@reports_errors
@gathered(Request, "request")
@gathered(Options, "options")
def run(bundle: Path, request: Request, options: Options, as_json: bool, dump: Path | None, quiet: bool) -> None:
    """Answer a question about a scene and a clip."""
    from .request import answer_request

    answer_request(bundle, request, options, as_json=as_json, dump=dump)
