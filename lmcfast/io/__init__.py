"""Files: checkpoints in, checkpoints and permutation files out, never half-written.

Importing this package does not import torch; reading or writing tensors does.
"""

from __future__ import annotations

from .atomic import atomic_path, check_writable, check_writable_folder, same_file
from .checkpoint import (
    SUFFIXES,
    Checkpoint,
    check_output,
    file_sha256,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from .folder import read_weights, weight_files, weights_sha256
from .permutations import PermutationFile, check_sources, read_permutations, write_permutations

__all__ = [
    "SUFFIXES",
    "Checkpoint",
    "PermutationFile",
    "atomic_path",
    "check_output",
    "check_sources",
    "check_writable",
    "check_writable_folder",
    "file_sha256",
    "load_checkpoint",
    "read_checkpoint",
    "read_permutations",
    "read_weights",
    "same_file",
    "save_checkpoint",
    "weight_files",
    "weights_sha256",
    "write_permutations",
]
