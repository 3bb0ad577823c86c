"""What a session makes of a scene and a clip, and its answer to a question."""

from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from .control.events import Done, Text
from .encoders.encoder import Kept
from .errors import Cancelled, StllmError
from .fit.fit import Fit
from .host.rays import Rays
from .host.voxels import Voxels
from .inputs.selection import Selection
from .llm.prompt import Prompt
from .memory.meter import Meter
from .stages import EncodedRays, Step

__all__ = ["Answer", "Transcript", "View"]


# arrays are not equal or unequal as a whole, so views are compared by identity
@dataclass(frozen=True, eq=False)
class View:
    """What a session knows of a scene and a clip before a question is asked.

    Attributes:
        selection: the frames that were chosen.
        voxels: voxels of the scene.
        rays: view directions.
        points: `pcd_features`, in memory or on the GPU.
        video_tokens: [T, n, n+1, d] float32; the last column of each row is the newline embedding.
        meter: time and memory, by stage.
        fit: scene and clip held against each other.
        encoded_rays: what the aligner takes of them; only a resident session keeps it from question to question.
    """

    selection: Selection
    voxels: Voxels
    rays: Rays
    points: np.ndarray | Kept
    video_tokens: np.ndarray
    meter: Meter
    fit: Fit | None = field(default=None, repr=False)
    encoded_rays: EncodedRays | None = field(default=None, repr=False)

    @property
    def pcd_features(self) -> np.ndarray:
        """[N, features] float32, in the order of `voxels`."""
        return np.asarray(self.points)

    @property
    def pooled_features(self) -> np.ndarray:
        """[T, n*n, d] float32, the video tokens without row ends."""
        frames, grid, _, width = self.video_tokens.shape
        return self.video_tokens[:, :, :-1].reshape(frames, grid * grid, width)

    def again(self) -> "View":
        """The same for a further question, whose meter begins anew: all of it was known."""
        reused = {stage: {"hits": sum(counts.values()), "misses": 0} for stage, counts in self.meter.reused.items()}
        return replace(self, meter=Meter(self.meter.stages, reused=reused))

    @property
    def video(self) -> np.ndarray:
        """[T*n*(n+1), d] float32, the video tokens in the order of the prompt."""
        return self.video_tokens.reshape(-1, self.video_tokens.shape[-1])

    def stages(self) -> dict[str, np.ndarray]:
        """Arrays by the names that reference tensors carry."""
        return {
            "voxel_coords": self.voxels.coords,
            "voxel_feats": self.voxels.feats,
            "w2c_0": self.rays.w2c_0,
            "pcd_viewdirs": self.rays.voxels,
            "img_rays_pooled": self.rays.frames.reshape(len(self.selection), -1, 3),
            "pcd_features": self.pcd_features,
            "pooled_features": self.pooled_features,
            "video_tokens": self.video,
        }


class Transcript:
    """The tokens of an answer, recorded as they come.

    Attributes:
        ids: generated so far, with the stop id if one came.
        logits: [vocabulary] float32 after the prompt, once it has been read.
        ended: why the answer ended: `stop` at a stop id, `length` at the most tokens, `stop string`, or `time` at the
            deadline; empty before.
    """

    def __init__(self, steps: Generator[Step, None, None], stop_ids: Collection[int]):
        self.ids: list[int] = []
        self.logits: np.ndarray | None = None
        self.ended = ""
        self._steps, self._stop_ids = steps, stop_ids

    def __iter__(self) -> Iterator[int]:
        """Ids without the stop id."""
        for token, logits in self._steps:
            if self.logits is None:
                self.logits = logits
            self.ids.append(token)
            if token in self._stop_ids:
                self.ended = "stop"
                return
            yield token
        self.ended = "length"

    def stop_found(self) -> None:
        """A text that ends answers has come."""
        self.ended = "stop string"

    def close(self) -> None:
        """End the generation, which frees the language model that it holds."""
        self._steps.close()


class Answer:
    """An answer that is generated while it is iterated over, piece by piece.

    It owns the language model that it loads: once it is read to its end or closed, by `close` or as a context manager,
    the model is gone, unless the session is resident and keeps it.

    Attributes:
        view: what the question was asked about.
        prompt: the prompt and its ids.
        prefix_tokens: [latents, d] float32, what the aligner made of scene, clip and question.
        meter: time and memory, by stage.
        prompt_tokens: positions that the prompt takes in the language model, with the history of a conversation.
        text: generated so far.
        finished: whether it was read to its end.
    """

    def __init__(
        self,
        view: View,
        prompt: Prompt,
        prefix_tokens: np.ndarray,
        meter: Meter,
        transcript: Transcript,
        pieces: Iterator[str],
        prompt_tokens: int,
        at_work: Callable[[], AbstractContextManager[None]] = nullcontext,
    ):
        self.view, self.prompt, self.prefix_tokens, self.meter = view, prompt, prefix_tokens, meter
        self.prompt_tokens, self.text, self.finished = prompt_tokens, "", False
        self._transcript, self._pieces, self._closed, self._at_work = transcript, pieces, False, at_work

    @property
    def approximate(self) -> dict[str, int] | None:
        """Video positions whose keys and values are of an earlier question, and others; None where all is exact."""
        counts = self.meter.reused.get("video_keys")
        return None if counts is None else {"kept": counts["hits"], "computed": counts["misses"]}

    def __iter__(self) -> Iterator[str]:
        """Text as it comes; an answer that was begun continues where it was.

        Raises:
            StllmError: it was closed before it was read to its end, or another thread is at work with the session.
            Cancelled: it was cancelled; or its deadline passed before there was a token, for with some text it ends.
        """
        while not self.finished:
            if self._closed:
                raise StllmError("the answer, or its session, was closed before it was read to its end; ask again")
            with self._at_work():
                piece = self._next()
            if piece is None:
                self._finish()
                return
            self.text += piece
            self.meter.control.emit(Text(piece))
            yield piece

    def _next(self) -> str | None:
        """The next piece; None at the end."""
        try:
            return next(self._pieces, None)
        except Cancelled:
            if not (self.meter.control.timed_out and self.token_ids):
                self.close()
                raise
            self._transcript.ended = "time"
            return None

    def _finish(self) -> None:
        self.finished = True
        # a stop string leaves the generation where it was
        self._transcript.close()
        self.meter.control.finish()
        spent = {stage: round(milliseconds, 3) for stage, milliseconds in self.meter.milliseconds.items()}
        self.meter.control.emit(Done(self.text, self.ended, len(self.token_ids), spent))

    @property
    def being_read(self) -> bool:
        """Whether it is neither read to its end nor closed."""
        return not (self.finished or self._closed)

    def cancel(self) -> None:
        """End it, from any thread; the thread that reads it gets `Cancelled`."""
        self.meter.control.cancel()

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the language model; what was generated stays."""
        self._closed = True
        self._transcript.close()
        self.meter.control.finish()

    @property
    def ended(self) -> str:
        """Why it ended: `stop`, `length`, `stop string` or `time`; empty before."""
        return self._transcript.ended

    @property
    def token_ids(self) -> list[int]:
        """Ids generated so far, with the stop id if one came."""
        return self._transcript.ids

    @property
    def logits_last_prompt(self) -> np.ndarray | None:
        """[vocabulary] float32, once the prompt has been read."""
        return self._transcript.logits

    def stages(self) -> dict[str, np.ndarray]:
        """Arrays of all stages by the names that reference tensors carry.

        Raises:
            StllmError: the answer has not been read, so that its last stages have not been computed.
        """
        if self.logits_last_prompt is None:
            raise StllmError("the answer has not been read yet, and its arrays are not there; iterate over it first")
        return {
            **self.view.stages(),
            "prefix_tokens": self.prefix_tokens,
            "prompt_token_ids": self.prompt.token_ids,
            "aligner_token_ids": self.prompt.aligner_token_ids,
            "logits_last_prompt": self.logits_last_prompt,
            "token_ids": np.array(self.token_ids, np.int64),
        }
