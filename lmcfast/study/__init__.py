"""The paper's study: networks, data, training, experiments and report; the demo is its smallest case."""

from .claims import Claim, study_claims
from .data import Batches, Dataset, load_digits, load_npz
from .demo import DemoResult, DemoRow, run_demo
from .networks import Mlp, Resnet20, Vgg11
from .readers import load_dataset, padded
from .report import width_picture, write_report
from .run import run_study
from .settings import StudySettings, default_settings
from .tables import study_tables
from .training import CONVOLUTION_RECIPE, MLP_RECIPE, Recipe, build, train

__all__ = [
    "CONVOLUTION_RECIPE",
    "MLP_RECIPE",
    "Batches",
    "Claim",
    "Dataset",
    "DemoResult",
    "DemoRow",
    "Mlp",
    "Recipe",
    "Resnet20",
    "StudySettings",
    "Vgg11",
    "build",
    "default_settings",
    "load_dataset",
    "load_digits",
    "load_npz",
    "padded",
    "run_demo",
    "run_study",
    "study_claims",
    "study_tables",
    "train",
    "width_picture",
    "write_report",
]
