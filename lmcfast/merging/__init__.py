"""Joining networks: checkpoint files into one, and the statistics of the joined network repaired."""

from .batchnorm import UnresetBatchNormWarning, reset_batchnorm
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
from .models import SpecFile, read_spec, spec_of_file
from .pairs import AlignedPair, read_pair, read_plain_pair
from .repair import RepairReport, repair, repair_many, rescale

__all__ = [
    "AlignedPair",
    "AppliedFile",
    "MatchOptions",
    "MatchSummary",
    "MatchedFiles",
    "MergedFile",
    "RepairReport",
    "SpecFile",
    "UnresetBatchNormWarning",
    "apply_file",
    "match_files",
    "merge_files",
    "read_pair",
    "read_plain_pair",
    "read_spec",
    "repair",
    "repair_many",
    "rescale",
    "reset_batchnorm",
    "spec_of_file",
]
