"""Why and how well a merge works: barriers, distances, singular vectors, what layers see; plots."""

from .alignment import LayerAlignment, MergedAlignment, SingularAlignment, merged_alignment, singular_alignment
from .barrier import Barrier, barrier
from .diagnosis import Diagnosis, Verdict, diagnose, report_page
from .distance import DistanceReduction, distance_reduction
from .inputs import InputEnergy, LayerDifference, energy_share, input_energy, layer_difference
from .objective import LayerObjective, SingularObjective, singular_objective
from .plane import Plane, plane
from .plots import (
    plot_alignment,
    plot_barrier,
    plot_input_energy,
    plot_layer_difference,
    plot_layers,
    plot_plane,
    plot_spectra,
    plot_trace,
    plot_widths,
)
from .sampled import CheckpointDiagnosis, LayerDiagnosis, diagnose_checkpoints
from .spectra import Spectra, spectra
from .summary import Summary, mean_deviation
from .taylor import TaylorBarrier, taylor_barrier

__all__ = [
    "Barrier",
    "CheckpointDiagnosis",
    "Diagnosis",
    "DistanceReduction",
    "InputEnergy",
    "LayerAlignment",
    "LayerDiagnosis",
    "LayerDifference",
    "LayerObjective",
    "MergedAlignment",
    "Plane",
    "SingularAlignment",
    "SingularObjective",
    "Spectra",
    "Summary",
    "TaylorBarrier",
    "Verdict",
    "barrier",
    "diagnose",
    "diagnose_checkpoints",
    "distance_reduction",
    "energy_share",
    "input_energy",
    "layer_difference",
    "mean_deviation",
    "merged_alignment",
    "plane",
    "plot_alignment",
    "plot_barrier",
    "plot_input_energy",
    "plot_layer_difference",
    "plot_layers",
    "plot_plane",
    "plot_spectra",
    "plot_trace",
    "plot_widths",
    "report_page",
    "singular_alignment",
    "singular_objective",
    "spectra",
    "taylor_barrier",
]
