"""Generated rooms of any size."""

from pathlib import Path

import numpy as np
from stllm_edge.benchmarks.world.rooms import room, write_room
from stllm_edge.runtime.host.voxels import voxelise
from stllm_edge.runtime.inputs.clip import load_clip
from stllm_edge.runtime.inputs.scene import load_scene, projected_share
from stllm_edge.runtime.inputs.selection import select_frames


def test_a_room_has_so_many_voxels_without_repetition() -> None:
    cells = room(5000)
    assert cells.shape == (5000, 3)
    assert len(np.unique(cells, axis=0)) == 5000
    assert cells.min(axis=0).tolist() == [0, 0, 0]


def test_a_written_room_is_a_scene_that_the_clip_s_cameras_see(tmp_path: Path) -> None:
    folders = write_room(tmp_path, 3000, 5)
    scene, clip = load_scene(folders[0]), load_clip(folders[1])
    assert len(voxelise(scene.points, scene.colours, 0.06)) == 3000
    selection = select_frames(clip, scene.poses, frames=5, default=5)
    assert projected_share(scene, selection.poses, clip.size) > 0.1
    assert len(selection.timing()[1]) == 5
