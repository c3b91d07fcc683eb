"""Pictures of the analysis, one function each: ``plot_x(data, path=None)`` returns a matplotlib Figure."""

from .frame import COLORS, new_figure, save_figure
from .landscape import plot_plane
from .layers import plot_layer_difference, plot_layers
from .lines import plot_barrier, plot_trace, plot_widths
from .vectors import plot_alignment, plot_input_energy, plot_spectra

__all__ = [
    "COLORS",
    "new_figure",
    "plot_alignment",
    "plot_barrier",
    "plot_input_energy",
    "plot_layer_difference",
    "plot_layers",
    "plot_plane",
    "plot_spectra",
    "plot_trace",
    "plot_widths",
    "save_figure",
]
