"""What a study is made of: which network, data, methods, searches; the same settings give the same study."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import nn

from .data import Dataset
from .demo import DEMO_RECIPE
from .networks import Mlp, Resnet20, Vgg11
from .training import CONVOLUTION_RECIPE, MLP_RECIPE, Recipe

NetworkName = Literal["mlp", "vgg11", "resnet20"]
NETWORKS: tuple[str, ...] = get_args(NetworkName)
MatchMethod = Literal["wm", "am", "ste", "ste-random"]
METHODS: tuple[str, ...] = get_args(MatchMethod)
TITLES = {
    "none": "no matching", "wm": "weight matching", "am": "activation matching", "ste": "straight-through estimator",
    "ste-random": "straight-through estimator from random weights",
}  # fmt: skip
GAMMAS = (0.0, 0.3)

_WIDTHS = {"mlp": 512.0, "vgg11": 0.25, "resnet20": 0.5}
_HIDDEN = 3
_FEW = 10_000  # training images below which the paper's five epochs are too few steps
_FEW_STE_STEPS = 500


@dataclass(frozen=True)
class Search:
    """Network ``model`` matched to network ``anchor``, by their seeds."""

    anchor: int
    model: int

    def __str__(self) -> str:
        return f"{self.anchor}-{self.model}"


@dataclass(frozen=True)
class Triple:
    """Networks ``b`` and ``c``, both matched to ``anchor``."""

    anchor: int
    b: int
    c: int

    def __str__(self) -> str:
        return f"{self.anchor}-{self.b}-{self.c}"

    def searches(self) -> tuple[Search, Search]:
        return Search(self.anchor, self.b), Search(self.anchor, self.c)


@dataclass(frozen=True)
class StudySettings:
    """All that decides the figures of a study, beside the data.

    ``width``: units of each of the MLP's three hidden layers, or the multiplier of a convolution network's channels.
    ``seeds``: of the trainings. ``searches``: pairs of networks, ``triples``: threes of them (see
    :meth:`search_list`). ``ste_epochs``: passes over the training images, ``ste_batch``: images of a step.
    ``images``: losses, BatchNorm statistics and activations are measured on the first so many test and training images;
    ``costly_images``: Taylor estimates, inputs of the layers and the plane. ``points``: of the line between two
    networks; ``resolution``: of the plane.
    """

    network: NetworkName = "mlp"
    width: float = _WIDTHS["mlp"]
    recipe: Recipe = MLP_RECIPE
    methods: tuple[str, ...] = ("wm", "am", "ste")
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    searches: int = 5
    triples: int = 3
    ste_epochs: float = 10.0
    ste_batch: int = 256
    images: int = 10_000
    costly_images: int = 10_000
    points: int = 11
    resolution: int = 13

    def __post_init__(self) -> None:
        _choice("network", self.network, NETWORKS)
        for method in self.methods:
            _choice("methods", method, METHODS)
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods: different ones are needed, at least one, not {self.methods!r}")
        if not (math.isfinite(self.width) and self.width > 0):
            raise ValueError(f"width: a number above 0 is needed, not {self.width!r}")
        if self.network == "mlp" and self.width != int(self.width):
            raise ValueError(f"width: an MLP's is a whole number of units, not {self.width!r}")
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: at least two different ones are needed, not {self.seeds!r}")
        if not all(0 <= seed < 2**63 for seed in self.seeds):
            raise ValueError(f"seeds: must be whole numbers from 0 to 2^63 - 1, not {self.seeds!r}")
        for name, least in (("searches", 1), ("triples", 0), ("ste_batch", 1), ("images", 1), ("costly_images", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}, not {getattr(self, name)!r}")
        for name in ("points", "resolution"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}: must be at least 2, not {getattr(self, name)!r}")
        if not (math.isfinite(self.ste_epochs) and self.ste_epochs > 0):
            raise ValueError(f"ste_epochs: a number above 0 is needed, not {self.ste_epochs!r}")
        most = len(self._all_searches())
        if self.searches > most:
            raise ValueError(f"searches: {self.searches} need more than {len(self.seeds)} networks, which give {most}")
        if self.triples > len(self._all_triples()):
            raise ValueError(
                f"triples: {self.triples} need more than {len(self.seeds)} networks, which give "
                f"{len(self._all_triples())}"
            )

    def search_list(self) -> list[Search]:
        """The searches of tables 1, 2 and 4: with networks 1, 2, 3, ... in a ring, (1, 2), (1, 3), (2, 3), (2, 4), ...

        Each matches two independently trained networks. They are the halves of the triples, so that three models need
        no further matching; five searches touch four networks.
        """
        return self._all_searches()[: self.searches]

    def triple_list(self) -> list[Triple]:
        """The threes of table 3: (1; 2, 3), (2; 3, 4), (3; 4, 5), anchor first, in a ring."""
        return self._all_triples()[: self.triples]

    def needed_searches(self) -> list[Search]:
        """Those of the tables, and those that the triples need beside them."""
        halves = [search for triple in self.triple_list() for search in triple.searches()]
        return list(dict.fromkeys([*self.search_list(), *halves]))

    def needed_seeds(self) -> list[int]:
        """Seeds of the networks that take part, in the order of ``seeds``."""
        used = {seed for search in self.needed_searches() for seed in (search.anchor, search.model)}
        return [seed for seed in self.seeds if seed in used]

    def _all_triples(self) -> list[Triple]:
        count = len(self.seeds)
        if count < 3:
            return []
        return [Triple(*(self.seeds[(first + step) % count] for step in range(3))) for first in range(count)]

    def _all_searches(self) -> list[Search]:
        if len(self.seeds) == 2:
            return [Search(*self.seeds), Search(*reversed(self.seeds))]
        return list(dict.fromkeys(search for triple in self._all_triples() for search in triple.searches()))

    def ste_steps(self, data: Dataset) -> int:
        """Steps of the straight-through estimator."""
        return math.ceil(self.ste_epochs * len(data.train_inputs) / self.ste_batch)

    def label(self) -> str:
        """Network and width as one word for file names: "mlp-w512", "vgg11-w0.25"."""
        return f"{self.network}-w{self.width:g}"

    def factory(self, data: Dataset) -> Callable[[], nn.Module]:
        """What makes the network for images of ``data``; ValueError where they do not fit."""
        channels, height, width = data.train_inputs.shape[1:]
        if self.network == "mlp":
            return lambda: Mlp(data.input_size, (int(self.width),) * _HIDDEN, data.classes)
        if self.network == "vgg11":
            if (height, width) != (32, 32):
                raise ValueError(f"network: vgg11 takes images of 32 x 32, not {height} x {width}; give pad 32")
            return lambda: Vgg11(self.width, channels, data.classes)
        return lambda: Resnet20(self.width, channels, data.classes)


def default_settings(
    network: NetworkName,
    data: Dataset,
    width: float | None = None,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
) -> StudySettings:
    """The paper's recipe for the network, scaled where a CPU or few images ask for it.

    An MLP on few images trains by the demo's recipe, and its straight-through estimator makes 500 steps. Convolution
    networks train 20 epochs, of which one warms up, and their costly measures look at fewer images and points; three
    seeds instead of five.
    """
    _choice("network", network, NETWORKS)
    settings = StudySettings(network=network, width=_WIDTHS[network] if width is None else width)
    if network == "mlp":
        if len(data.train_inputs) < _FEW:
            passes = _FEW_STE_STEPS * settings.ste_batch / len(data.train_inputs)
            settings = replace(settings, recipe=DEMO_RECIPE, ste_epochs=passes)
    else:
        recipe = replace(CONVOLUTION_RECIPE, epochs=20, warmup=1)
        settings = replace(
            settings, recipe=recipe, seeds=(1, 2, 3), ste_epochs=1.0, costly_images=2000, points=5, resolution=9
        )
    if epochs is not None:
        settings = replace(settings, recipe=replace(settings.recipe, epochs=epochs))
    if seeds is None:
        return settings
    # fewer networks give fewer searches: as many as there are, up to the paper's
    fewer = replace(settings, seeds=tuple(seeds), searches=1, triples=0)
    searches, triples = len(fewer._all_searches()), len(fewer._all_triples())
    return replace(fewer, searches=min(settings.searches, searches), triples=min(settings.triples, triples))


def _choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name}: must be one of {', '.join(map(repr, known))}, not {value!r}")
