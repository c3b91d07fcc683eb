"""The paper's study: networks, data and training; the demo is its smallest case."""

from .data import Batches, Dataset, load_digits, load_npz
from .demo import DemoResult, DemoRow, run_demo
from .networks import Mlp, Resnet20, Vgg11
from .training import CONVOLUTION_RECIPE, MLP_RECIPE, Recipe, build, train

__all__ = [
    "CONVOLUTION_RECIPE",
    "MLP_RECIPE",
    "Batches",
    "Dataset",
    "DemoResult",
    "DemoRow",
    "Mlp",
    "Recipe",
    "Resnet20",
    "Vgg11",
    "build",
    "load_digits",
    "load_npz",
    "run_demo",
    "train",
]
