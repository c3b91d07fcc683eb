"""Joining networks: checkpoint files into one, and the statistics of the joined network repaired."""

from .batchnorm import UnresetBatchNormWarning, reset_batchnorm
from .choice import FamilyFigures, FolderOptions, MergedFolder
from .files import (
    AppliedFile,
    MatchedFiles,
    MatchOptions,
    MatchSummary,
    MergedFile,
    apply_file,
    match_files,
    merge_files,
)
from .folders import align_checkpoint, merge_checkpoints, plan_checkpoints
from .models import SpecFile, read_spec, spec_of_file
from .pairs import AlignedPair, read_pair, read_plain_pair
from .repair import RepairReport, repair, repair_many, rescale

__all__ = [
    "AlignedPair",
    "AppliedFile",
    "FamilyFigures",
    "FolderOptions",
    "MatchOptions",
    "MatchSummary",
    "MatchedFiles",
    "MergedFile",
    "MergedFolder",
    "RepairReport",
    "SpecFile",
    "UnresetBatchNormWarning",
    "align_checkpoint",
    "apply_file",
    "match_files",
    "merge_checkpoints",
    "merge_files",
    "plan_checkpoints",
    "read_pair",
    "read_plain_pair",
    "read_spec",
    "repair",
    "repair_many",
    "rescale",
    "reset_batchnorm",
    "spec_of_file",
]
