"""Draw docs/architecture.svg: the way of a question, a point and a frame; `make docs` runs it."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

SANS = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, SOFT, PAPER = "#1f2937", "#6b7280", "#ffffff"
QUESTION, POINT, CAMERA, FRAME, BOTH = "#7c3aed", "#0f766e", "#475569", "#1d4ed8", "#9f1239"
TAG, TAG_INK = "#fef3c7", "#92400e"
# the widest of the fonts above, as a share of the size
SANS_ADVANCE, MONO_ADVANCE = 0.62, 0.605

# the four lanes
COLUMN, GAP, LEFT, INSET = 200, 54, 52, 60
QUESTION_X, POINT_X, CAMERA_X, FRAME_X = (LEFT + place * (COLUMN + GAP) for place in range(4))
MIDDLE = COLUMN // 2
# lines that pass a box beside them, and those into the aligner
IDS_X, TEXT_X = QUESTION_X + 30, QUESTION_X + 130
FEATS_X, MAPS_X = POINT_X + 30, POINT_X + 130
POOLED_X, VIDEO_X = FRAME_X + 30, FRAME_X + 120
ALIGNER_LEFT, ALIGNER_RIGHT = QUESTION_X + INSET, POOLED_X + 28
PREFIX_X = POINT_X + MIDDLE
# where the bands begin
INPUTS, HOST, ENCODERS, LLM = 10, 106, 352, 618
WIDTH, HEIGHT = 1040, 872


class Drawing:
    """Shapes in the order in which they are painted; what does not fit is an error."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> None:
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{fill}" stroke="{stroke}" '
            'stroke-width="1.5"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 12,
        mono: bool = False,
        bold: bool = False,
        fill: str = INK,
        anchor: str = "middle",
        room: float = WIDTH,
        turn: bool = False,
    ) -> None:
        """A line of text; raises ValueError when it may be wider than `room`."""
        if len(words) * size * (MONO_ADVANCE if mono else SANS_ADVANCE) > room:
            raise ValueError(f"{words!r} is wider than {room}")
        turned = f' transform="rotate(-90 {x} {y})"' if turn else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-family="{MONO if mono else SANS}" font-size="{size}" fill="{fill}" '
            f'text-anchor="{anchor}" font-weight="{600 if bold else 400}"{turned}>{escape(words)}</text>'
        )

    def band(self, y: float, height: float, fill: str, process: str, by: str = "") -> None:
        """What one kind of process runs, and by what means."""
        self.rect(10, y, WIDTH - 20, height, fill)
        middle = y + height / 2
        self.text(26 if by else 33, middle, process, size=12.5, bold=True, fill=SOFT, turn=True, room=height)
        if by:
            self.text(42, middle, by, size=11, fill=SOFT, turn=True, room=height)

    def box(
        self, x: float, y: float, title: str, module: str, colour: str, *, width: float = COLUMN, files: str = ""
    ) -> None:
        """A stage: its name, where it stands, and which files of the bundle it reads; 46 high, or 70 with files."""
        self.rect(x, y, width, 70 if files else 46, PAPER, colour)
        self.text(x + width / 2, y + 19, title, size=14, bold=True, fill=colour, room=width - 12)
        self.text(x + width / 2, y + 36, module, size=11, mono=True, fill=SOFT, room=width - 12)
        if files:
            self.tag(x + width / 2, y + 45, files, room=width - 8)

    def tag(self, x: float, y: float, files: str, room: float = WIDTH) -> None:
        """Names of files, centred at `x`."""
        width = len(files) * 10.5 * MONO_ADVANCE + 14
        self.parts.append(f'<rect x="{x - width / 2:g}" y="{y}" width="{width:g}" height="18" rx="9" fill="{TAG}"/>')
        self.text(x, y + 12.5, files, size=10.5, mono=True, fill=TAG_INK, room=room)

    def arrow(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        colour: str,
        label: Sequence[str] = (),
    ) -> None:
        """An arrow down with its label beside the tip, or one across with its label above."""
        (x, y), (to_x, to_y) = start, end
        self.parts.append(f'<path d="M{x} {y}L{to_x} {to_y}" stroke="{colour}" stroke-width="1.8" fill="none"/>')
        across, down = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
        back_x, back_y = to_x - 8 * across, to_y - 8 * down
        wings = f"{back_x + 4.5 * down} {back_y + 4.5 * across}L{back_x - 4.5 * down} {back_y - 4.5 * across}"
        self.parts.append(f'<path d="M{to_x} {to_y}L{wings}Z" fill="{colour}"/>')
        for number, line in enumerate(reversed(label)):
            if across:
                self.text((x + to_x) / 2, y - 8 - 13 * number, line, size=10.5, mono=True, fill=colour, room=GAP - 4)
            else:
                self.text(
                    x + 8, to_y - 15 - 14 * number, line, size=11.5, mono=True, fill=colour, anchor="start", room=150
                )

    def svg(self) -> str:
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">'
        title = "<title>How a question, a point and a frame travel to an answer</title>"
        return "\n".join([head, title, *self.parts, "</svg>"]) + "\n"


def draw_inputs(page: Drawing) -> None:
    """What a user has, and the way of it to the host."""
    y, below = INPUTS + 22, HOST + 52
    page.box(QUESTION_X, y, "question", "text", QUESTION)
    page.box(POINT_X, y, "point cloud", ".npy .ply .glb", POINT)
    page.box(CAMERA_X, y, "camera", "poses/*.txt  K.txt", CAMERA)
    page.box(FRAME_X, y, "clip", "frames or a video", FRAME)
    page.arrow((CAMERA_X + COLUMN, y + 23), (FRAME_X, y + 23), CAMERA, ["poses"])
    page.arrow((QUESTION_X + MIDDLE, y + 46), (QUESTION_X + MIDDLE, below), QUESTION, ["str"])
    page.arrow((POINT_X + MIDDLE, y + 46), (POINT_X + MIDDLE, below), POINT, ["xyz [P, 3]", "rgb [P, 3]"])
    page.arrow((CAMERA_X + MIDDLE, y + 46), (CAMERA_X + MIDDLE, below), CAMERA, ["K [3, 3]"])
    page.arrow((FRAME_X + MIDDLE, y + 46), (FRAME_X + MIDDLE, below), FRAME, ["names", "and poses"])


def draw_host(page: Drawing) -> None:
    """What NumPy computes in the process that asks."""
    first, second = HOST + 52, HOST + 160
    page.box(QUESTION_X, first, "prompt", "llm/prompt.py", QUESTION, files="llm/<QUANT>.gguf")
    page.box(POINT_X, first, "voxels", "host/voxels.py", POINT)
    page.box(CAMERA_X, first, "view directions", "host/rays.py", CAMERA)
    page.box(FRAME_X, first, "sample T frames", "inputs/selection.py", FRAME)
    page.arrow((POINT_X + COLUMN, first + 23), (CAMERA_X, first + 23), POINT, ["coords", "[N, 3]"])
    page.arrow((FRAME_X, first + 23), (CAMERA_X + COLUMN, first + 23), FRAME, ["poses", "[T,4,4]"])
    page.box(
        QUESTION_X + INSET, second, "embeddings", "llm/embeddings.py", QUESTION, width=140, files="llm/<QUANT>.gguf"
    )
    page.box(POINT_X + INSET, second, "kernel maps", "host/maps.py", POINT, width=140)
    page.box(CAMERA_X, second, "encoding", "host/rays.py", CAMERA)
    page.box(FRAME_X, second, "pixels", "host/pixels.py", FRAME)
    page.arrow((TEXT_X, first + 70), (TEXT_X, second), QUESTION, ["ids [L]"])
    page.arrow((MAPS_X, first + 46), (MAPS_X, second), POINT, ["coords", "[N, 3]"])
    page.arrow((CAMERA_X + MIDDLE, first + 46), (CAMERA_X + MIDDLE, second), CAMERA, ["[N, 3]", "[T, n, n, 3]"])
    page.arrow((FRAME_X + MIDDLE, first + 46), (FRAME_X + MIDDLE, second), FRAME, ["[H, W, 3]", "uint8"])


def draw_encoders(page: Drawing) -> None:
    """What ONNX Runtime or TensorRT computes, one process each."""
    voxels, made, top, aligner = HOST + 98, HOST + 206, ENCODERS + 48, ENCODERS + 178
    page.arrow((FEATS_X, voxels), (FEATS_X, top), POINT, ["voxel_feats", "[N, 3]"])
    page.arrow((MAPS_X, made), (MAPS_X, top), POINT, ["maps"])
    page.arrow((FRAME_X + MIDDLE, made), (FRAME_X + MIDDLE, top), FRAME, ["frames", "[T, 3, S, S]"])
    page.box(POINT_X, top, "point encoder", "MinkUNet18A", POINT, files="onnx/points*.{onnx,data}")
    page.box(FRAME_X, top, "vision encoder", "SigLIP, projector, pooling", FRAME, files="onnx/vision*.{onnx,data}")
    page.arrow((TEXT_X, made + 24), (TEXT_X, aligner), QUESTION, ["text_embeds", "[L, d]"])
    page.arrow((POINT_X + MIDDLE, top + 70), (POINT_X + MIDDLE, aligner), POINT, ["pcd_features", "[N, w]"])
    page.arrow((CAMERA_X + 40, made), (CAMERA_X + 40, aligner), CAMERA, ["pcd_rays", "[N, 387]"])
    page.arrow((CAMERA_X + 130, made), (CAMERA_X + 130, aligner), CAMERA, ["img_rays", "[T·n·n, 387]"])
    page.arrow((POOLED_X, top + 70), (POOLED_X, aligner), FRAME, ["pooled", "[T·n·n, d]"])
    width = ALIGNER_RIGHT - ALIGNER_LEFT
    page.box(
        ALIGNER_LEFT, aligner, "aligner", "Q-Former, 32 queries", BOTH, width=width, files="onnx/aligner*.{onnx,data}"
    )


def draw_language_model(page: Drawing) -> None:
    """What llama.cpp reads and writes."""
    top, model = LLM + 52, LLM + 124
    bottom, across = top + 32, model + 35
    pieces = (
        (QUESTION_X, 180, QUESTION, "system, user"),
        (238, 300, BOTH, "prefix"),
        (544, 36, QUESTION, "\\n"),
        (586, 358, FRAME, "video, a newline after each row"),
        (950, 64, QUESTION, "question"),
    )
    for x, width, colour, words in pieces:
        page.rect(x, top, width, bottom - top, colour)
        page.text(x + width / 2, top + 20.5, words, size=11.5, bold=True, fill=PAPER, room=width - 6)
    page.arrow((IDS_X, HOST + 122), (IDS_X, top), QUESTION, ["ids"])
    page.arrow((PREFIX_X, ENCODERS + 248), (PREFIX_X, top), BOTH, ["prefix_tokens", "[32, d]"])
    page.arrow((VIDEO_X, ENCODERS + 118), (VIDEO_X, top), FRAME, ["video_tokens", "[T,n,n+1,d]"])
    page.arrow((PREFIX_X, bottom), (PREFIX_X, model), INK, ["prefill, decode"])
    page.box(POINT_X, model, "language model", "Qwen2", INK, files="llm/<QUANT>.gguf")
    page.arrow((POINT_X + COLUMN, across), (CAMERA_X, across), INK, ["logits", "[V]"])
    page.box(CAMERA_X, model, "sampling", "llm/sampling.py", INK, files="manifest.json, stop ids")
    page.arrow((CAMERA_X + COLUMN, across), (FRAME_X, across), INK, ["ids"])
    page.box(FRAME_X, model + 12, "answer", "text, as it comes", INK)


def draw() -> str:
    """The whole picture."""
    page = Drawing()
    page.rect(0, 0, WIDTH, HEIGHT, PAPER)
    page.band(INPUTS, 90, "#f3f4f6", "your files")
    page.band(HOST, 240, "#e9eff6", "this process", "NumPy")
    page.band(ENCODERS, 260, "#f3f4f6", "a process each", "ONNX Runtime or TensorRT")
    page.band(LLM, 210, "#e9eff6", "this process", "llama.cpp")
    for part in (draw_inputs, draw_host, draw_encoders, draw_language_model):
        part(page)
    words = "N voxels, T frames of S×S pixels, n×n patches a frame, L tokens of the user turn, widths w and d, V ids"
    page.text(LEFT, HEIGHT - 20, words, size=12, fill=SOFT, anchor="start")
    page.tag(WIDTH - 78, HEIGHT - 32, "file of the bundle")
    return page.svg()


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(draw(), encoding="utf-8")
