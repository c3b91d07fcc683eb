"""Fast, exact and verifiable alignment of neural networks up to their permutation symmetries.

Every public name is loaded on first use, so that ``import lmcfast`` and a solve on numpy arrays never import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from . import analysis as analysis
    from .assignment import Assignment as Assignment
    from .assignment import solve_assignment as solve_assignment
    from .assignment import solve_sparse_assignment as solve_sparse_assignment
    from .errors import CertificateError as CertificateError
    from .errors import CheckpointError as CheckpointError
    from .errors import InfeasibleError as InfeasibleError
    from .errors import InvalidInputsError as InvalidInputsError
    from .errors import InvalidParamsError as InvalidParamsError
    from .errors import InvalidPermutationError as InvalidPermutationError
    from .errors import InvalidScoresError as InvalidScoresError
    from .errors import LmcfastError as LmcfastError
    from .errors import OptionError as OptionError
    from .errors import ScoresShapeError as ScoresShapeError
    from .errors import SpecError as SpecError
    from .errors import UnavailableError as UnavailableError
    from .io import load_checkpoint as load_checkpoint
    from .io import save_checkpoint as save_checkpoint
    from .matching import MatchResult as MatchResult
    from .matching import load_permutations as load_permutations
    from .matching.activation import activation_matching as activation_matching
    from .matching.many import ManyResult as ManyResult
    from .matching.many import match_many as match_many
    from .matching.partial import PartialResult as PartialResult
    from .matching.partial import expand as expand
    from .matching.partial import partial_matching as partial_matching
    from .matching.straight_through import straight_through_matching as straight_through_matching
    from .matching.straight_through_many import straight_through_many as straight_through_many
    from .matching.weight_matching import weight_matching as weight_matching
    from .merging import MergedFolder as MergedFolder
    from .merging import UnresetBatchNormWarning as UnresetBatchNormWarning
    from .merging import align_checkpoint as align_checkpoint
    from .merging import merge_checkpoints as merge_checkpoints
    from .merging import reset_batchnorm as reset_batchnorm
    from .merging.repair import RepairReport as RepairReport
    from .merging.repair import repair as repair
    from .merging.repair import repair_many as repair_many
    from .merging.repair import rescale as rescale
    from .params import apply_permutations as apply_permutations
    from .params import compose_permutations as compose_permutations
    from .params import distance as distance
    from .params import interpolate as interpolate
    from .params import invert_permutations as invert_permutations
    from .spec import Group as Group
    from .spec import PermutationSpec as PermutationSpec
    from .spec import derive_spec as derive_spec
    from .spec import spec_for as spec_for
    from .spec import spec_from_params as spec_from_params
    from .spec import verify_spec as verify_spec
    from .spec.similarity import similarity as similarity

# Public name -> the module that defines it. Submodules that are public as such map to themselves.
_HOME = {
    "analysis": "analysis",
    "Assignment": "assignment",
    "solve_assignment": "assignment",
    "solve_sparse_assignment": "assignment",
    "CertificateError": "errors",
    "CheckpointError": "errors",
    "InfeasibleError": "errors",
    "InvalidParamsError": "errors",
    "InvalidInputsError": "errors",
    "InvalidPermutationError": "errors",
    "InvalidScoresError": "errors",
    "LmcfastError": "errors",
    "OptionError": "errors",
    "ScoresShapeError": "errors",
    "SpecError": "errors",
    "UnavailableError": "errors",
    "load_checkpoint": "io",
    "save_checkpoint": "io",
    "MatchResult": "matching",
    "load_permutations": "matching",
    "activation_matching": "matching.activation",
    "ManyResult": "matching.many",
    "match_many": "matching.many",
    "PartialResult": "matching.partial",
    "expand": "matching.partial",
    "partial_matching": "matching.partial",
    "straight_through_matching": "matching.straight_through",
    "straight_through_many": "matching.straight_through_many",
    "weight_matching": "matching",
    "UnresetBatchNormWarning": "merging",
    "MergedFolder": "merging",
    "align_checkpoint": "merging",
    "merge_checkpoints": "merging",
    "RepairReport": "merging",
    "repair": "merging",
    "repair_many": "merging",
    "rescale": "merging",
    "reset_batchnorm": "merging",
    "apply_permutations": "params",
    "compose_permutations": "params",
    "distance": "params",
    "interpolate": "params",
    "invert_permutations": "params",
    "Group": "spec",
    "PermutationSpec": "spec",
    "derive_spec": "spec",
    "similarity": "spec",
    "spec_for": "spec",
    "spec_from_params": "spec",
    "verify_spec": "spec",
}

__all__ = ["__version__", *_HOME]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 15 ms that few need

    try:
        return version("lmcfast")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lmcfast' has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{home}")
    value = module if home == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
