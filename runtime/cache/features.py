"""The stages that do not depend on a question, each computed once for what it is made of.

Every method is a stage of `Stages`, wrapped once: a key over its inputs, and the stage itself where the key is unknown.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from ..encoders.encoder import Kept
from ..fit.fit import Subject, Verdict
from ..host.maps import KernelMaps
from ..host.rays import Rays
from ..host.voxels import Voxels
from ..inputs.frames import Content
from ..inputs.scene import Scene
from ..inputs.selection import Selection
from ..memory.meter import Meter
from ..stages import EncodedRays, Stages
from .keys import DECODERS, REVISION, Arrays, digest, encoder_digest, installed
from .store import Store

__all__ = ["Features", "known_verdict"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Features:
    """The stages of one scene and one selection of frames.

    Attributes:
        stages: what computes.
        store: what is known.
        scene: the environment.
        selection: the frames.
        meter: what it took, and what was known.
        arrays: digests of the scene's arrays.
    """

    stages: Stages
    store: Store
    scene: Scene
    selection: Selection
    meter: Meter
    arrays: Arrays = field(default_factory=Arrays)

    def voxels(self) -> Voxels:
        """The occupied voxels of the scene."""
        return self._once("voxels", self._cloud, lambda: self.stages.host.voxels(self.scene, self.meter))

    def maps(self, voxels: Voxels) -> KernelMaps | None:
        """Their kernel maps; None where the point features are known, which alone need them."""
        if self._points_key in self.store:
            return None
        key = digest(self._cloud, "maps", self.stages.setup.map_format)
        return self._once("maps", key, lambda: self.stages.host.maps(voxels, self.meter))

    def rays(self, voxels: Voxels) -> Rays:
        """View directions."""
        stages, scene, selection, meter = self.stages, self.scene, self.selection, self.meter
        return self._once("rays", self._rays_key, lambda: stages.host.rays(scene, selection, voxels, meter))

    def encode_rays(self, rays: Rays) -> EncodedRays:
        """Their encodings."""
        key = digest(self._rays_key, "encoded")
        return self._once("rays", key, lambda: self.stages.host.encode_rays(rays, self.meter))

    def points(self, voxels: Voxels, maps: KernelMaps | None) -> np.ndarray | Kept:
        """Point features in the order of the voxels."""

        def compute() -> np.ndarray | Kept:
            # maps are None too where a file of features was there and then was not, or is damaged
            known = maps or self.stages.host.maps(voxels, self.meter)
            return self.stages.points(voxels, known, self.meter)

        return self._once("points", self._points_key, compute)

    def vision(self) -> np.ndarray:
        """Video tokens [T, n, n+1, d] float32: each frame is known or not by itself, and encoded at most once."""
        geometry, count = self.stages.setup.bundle.geometry, len(self.selection)
        tokens = np.empty((count, geometry.vision.grid, geometry.vision.grid + 1, geometry.llm.width), np.float32)
        wanted: dict[str, list[int]] = {}
        order: list[str] = []

        def unknown() -> Iterator[np.ndarray]:
            """Pixels of the frames that are not known; the others are filled in as they come by, and not decoded."""
            host, meter = self.stages.host, self.meter
            for place, content in enumerate(host.contents(self.selection, meter)):
                with meter.clock("video"):
                    key = digest(self._tower, *content.parts)
                known = None if key in wanted else self.store.get(key)
                self.meter.note_reuse("vision", known is not None or key in wanted)
                if known is not None:
                    tokens[place] = known
                elif key in wanted:
                    wanted[key].append(place)
                else:
                    wanted[key] = [place]
                    order.append(key)
                    yield host.pixels(host.decode(content, meter), meter)

        for number, encoded in enumerate(self.stages.encode_frames(unknown(), self.meter)):
            self.store.put(order[number], encoded.copy())
            tokens[wanted[order[number]][0]] = encoded
        for first, *again in wanted.values():
            tokens[again] = tokens[first]
        return tokens

    @cached_property
    def _cloud(self) -> str:
        """Of the scene's points and colours, as they are: a byte that moves no voxel counts too."""
        cloud = [self.arrays.digest(self.scene.points), self.arrays.digest(self.scene.colours)]
        return digest(REVISION, "cloud", cloud, self.stages.host.voxel_size)

    @cached_property
    def _points_key(self) -> str:
        return digest(self._cloud, encoder_digest(self.stages.setup, "points"))

    @cached_property
    def _rays_key(self) -> str:
        size, vision = list(self.selection.clip.size), astuple(self.stages.host.vision)
        return digest(self._cloud, "rays", self.selection.poses, self.scene.intrinsics, size, vision)

    @cached_property
    def _tower(self) -> str:
        decoders = [installed(package) for package in DECODERS]
        return digest(encoder_digest(self.stages.setup, "vision"), self.stages.host.vision.image_size, decoders)

    def _once(self, stage: str, key: str, compute: Callable[[], Result]) -> Result:
        """A stage's result, from what is known or computed now."""
        known: Any = self.store.get(key)
        self.meter.note_reuse(stage, known is not None)
        if known is None:
            known = compute()
            self.store.put(key, known)
        return known


def known_verdict(
    store: Store, arrays: Arrays, subject: Subject, contents: Sequence[Content], judge: Callable[[], Verdict]
) -> Verdict:
    """What `examine` finds, from what is known of the same content or found now; errors as `judge` has them."""
    scene, clip, reading = subject.scene, subject.selection.clip, subject.reading
    held = [arrays.digest(scene.points), arrays.digest(scene.colours), [len(content.parts) for content in contents]]
    said = [reading.scale, reading.frame, sorted(reading.auto), subject.voxel_size, subject.asked, subject.thorough]
    times = [list(clip.size), clip.times and list(clip.times), list(subject.selection.indices)]
    parts = [part for content in contents for part in content.parts]
    decoders = [installed(package) for package in DECODERS]
    key = digest(REVISION, "fit", held, said, times, decoders, scene.intrinsics, subject.selection.poses, *parts)
    known: Verdict | None = store.get(key)
    if known is None:
        known = judge()
        store.put(key, known)
    return known
