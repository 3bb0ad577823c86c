"""Where cameras were and what they see: poses, intrinsics and lenses, from each format that has them.

Text of one pose a file, trajectories, COLMAP, EPIC-Fields, nerfstudio and EuRoC go in; out come camera-to-world poses.
"""

from .files import PoseFiles, load_poses, usable
from .intrinsics import load_intrinsics, scaled, to_intrinsics
from .poses import AUTO, BODY, FLIP_YZ, OPTICAL_IN_BODY, POSE_CONVENTIONS, require_convention, to_pose

__all__ = [
    "AUTO",
    "BODY",
    "FLIP_YZ",
    "OPTICAL_IN_BODY",
    "POSE_CONVENTIONS",
    "PoseFiles",
    "load_intrinsics",
    "load_poses",
    "require_convention",
    "scaled",
    "to_intrinsics",
    "to_pose",
    "usable",
]
