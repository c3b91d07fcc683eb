"""Why and how well a merge works: barriers, distances, singular vectors, what layers see; plots."""

from .alignment import LayerAlignment, SingularAlignment, singular_alignment
from .barrier import Barrier, barrier
from .distance import DistanceReduction, distance_reduction
from .inputs import InputEnergy, LayerDifference, energy_share, input_energy, layer_difference
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
from .spectra import Spectra, spectra
from .summary import Summary, mean_deviation
from .taylor import TaylorBarrier, taylor_barrier

__all__ = [
    "Barrier",
    "DistanceReduction",
    "InputEnergy",
    "LayerAlignment",
    "LayerDifference",
    "Plane",
    "SingularAlignment",
    "Spectra",
    "Summary",
    "TaylorBarrier",
    "barrier",
    "distance_reduction",
    "energy_share",
    "input_energy",
    "layer_difference",
    "mean_deviation",
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
    "singular_alignment",
    "spectra",
    "taylor_barrier",
]
