"""Why and how well a merge works: barriers, distances, singular vectors, what layers see; plots."""

from .alignment import LayerAlignment, SingularAlignment, singular_alignment
from .barrier import Barrier, barrier
from .diagnosis import Diagnosis, LayerDiagnosis, diagnose
from .distance import DistanceReduction, distance_reduction
from .inputs import InputEnergy, LayerDifference, energy_share, input_energy, layer_difference
from .plane import Plane, plane
from .plots import plot_barrier
from .spectra import Spectra, spectra
from .taylor import TaylorBarrier, taylor_barrier

__all__ = [
    "Barrier",
    "Diagnosis",
    "DistanceReduction",
    "InputEnergy",
    "LayerAlignment",
    "LayerDiagnosis",
    "LayerDifference",
    "Plane",
    "SingularAlignment",
    "Spectra",
    "TaylorBarrier",
    "barrier",
    "diagnose",
    "distance_reduction",
    "energy_share",
    "input_energy",
    "layer_difference",
    "plane",
    "plot_barrier",
    "singular_alignment",
    "spectra",
    "taylor_barrier",
]
