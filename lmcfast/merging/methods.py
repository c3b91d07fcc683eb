"""How aligned tensors become one: what is done with the numbers of one tensor, in blocks of rows, in float32 or wider.

A method sees a tensor twice at most: ``prepare`` goes through its blocks where the method needs something of the whole
tensor (norms, a threshold), ``combine`` makes each block of the result. Neither holds more than a block.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch

from ..errors import OptionError

Method = Literal["linear", "slerp", "task_arithmetic", "ties", "dare"]
METHODS: tuple[str, ...] = get_args(Method)

Parts = Sequence[torch.Tensor]
Blocks = Callable[[], Iterable[Parts]]

_NEARLY_PARALLEL = 0.9995  # cosine beyond which slerp is a straight line to float32 accuracy
_HIGH = 15  # lower bits of a float32: 2^16 coarse bins of as many numbers


@dataclass(frozen=True)
class Recipe:
    """A method with its numbers.

    ``weights``: one for each model; ``layer_weights``: (pattern of keys, weights), the last that matches counts.
    With a base (task forms) the last of the parts is the base, which has no weight; ``scale`` multiplies what is added
    to it. ``density``: the share of the differences that "ties" keeps (the largest) and "dare" keeps (at random, by
    ``seed`` and key).
    """

    method: Method = "linear"
    weights: tuple[float, ...] = (0.5, 0.5)
    layer_weights: tuple[tuple[str, tuple[float, ...]], ...] = ()
    scale: float = 1.0
    density: float = 0.2
    seed: int = 0

    @property
    def needs_base(self) -> bool:
        return self.method in ("task_arithmetic", "ties", "dare")

    def weights_of(self, key: str) -> tuple[float, ...]:
        matching = [weights for pattern, weights in self.layer_weights if fnmatchcase(key, pattern)]
        return matching[-1] if matching else self.weights

    def prepare(self, key: str, blocks: Blocks) -> Any:
        """What the method must know of a whole tensor before the first block."""
        if self.method == "slerp":
            return _slerp_weights(blocks(), self.weights_of(key)[1])
        if self.method == "ties":
            count = len(self.weights_of(key))
            return [_threshold(_differences(blocks, which), self.density) for which in range(count)]
        if self.method == "dare":
            digest = hashlib.sha256(f"{self.seed}/{key}".encode()).digest()
            return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        return None

    def combine(self, key: str, parts: Parts, prepared: Any) -> torch.Tensor:
        """One block of the result; the parts may be overwritten."""
        weights = self.weights_of(key)
        if self.method == "linear":
            return _sum(parts, weights)
        if self.method == "slerp":
            return _sum(parts, prepared)
        *models, base = parts
        differences = [model.sub_(base) for model in models]
        if self.method == "ties":
            change = _ties(differences, weights, prepared)
        else:
            if self.method == "dare":
                differences = [_dropped(difference, self.density, prepared) for difference in differences]
            change = _sum(differences, weights)
        return base.add_(change, alpha=self.scale)


def check_recipe(recipe: Recipe, models: int, has_base: bool) -> None:
    """``OptionError`` names the option that does not fit the number of models, or the method."""
    if recipe.method not in METHODS:
        raise OptionError(f"must be one of {', '.join(METHODS)}, not {recipe.method!r}", "method")
    if recipe.needs_base != has_base:
        raise OptionError(
            f"{'is needed for' if recipe.needs_base else 'has no effect with'} --method {recipe.method}", "base"
        )
    if recipe.method == "slerp" and models != 2:
        raise OptionError(f"slerp joins two models, not {models}", "method")
    for option, weights in (("weights", recipe.weights), *(("layer-weights", w) for _, w in recipe.layer_weights)):
        if len(weights) != models or not all(map(math.isfinite, weights)):
            raise OptionError(f"one finite number for each of {models} models is needed, not {list(weights)}", option)
        if not recipe.needs_base and not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
            raise OptionError(f"must add up to 1, not to {sum(weights):g}", option)
    if not 0.0 < recipe.density <= 1.0:
        raise OptionError(f"must be above 0 and at most 1, not {recipe.density:g}", "density")
    if not math.isfinite(recipe.scale):
        raise OptionError(f"must be a finite number, not {recipe.scale}", "scale")


def _sum(parts: Parts, weights: Sequence[float]) -> torch.Tensor:
    first, *rest = zip(parts, weights, strict=True)
    total = first[0].mul_(first[1])
    for part, weight in rest:
        total.add_(part, alpha=weight)
    return total


def _slerp_weights(blocks: Iterable[Parts], t: float) -> tuple[float, float]:
    """Weights that keep to the arc between two tensors (Shoemake 1985): sin((1-t) w) / sin w and sin(t w) / sin w."""
    dot = square_a = square_b = 0.0
    for a, b in blocks:
        dot += float((a.double() * b).sum())
        square_a += float(a.double().square().sum())
        square_b += float(b.double().square().sum())
    length = math.sqrt(square_a) * math.sqrt(square_b)
    cosine = dot / length if length else 1.0
    if abs(cosine) > _NEARLY_PARALLEL:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _differences(blocks: Blocks, which: int) -> Callable[[], Iterator[torch.Tensor]]:
    def differences() -> Iterator[torch.Tensor]:
        for parts in blocks():
            yield (parts[which] - parts[-1]).float()

    return differences


def _threshold(blocks: Callable[[], Iterable[torch.Tensor]], density: float) -> float:
    """The magnitude of the last of the ``density`` largest numbers, found in two counts of bit patterns.

    The bits of positive float32 numbers are ordered as the numbers are.
    """
    coarse = torch.zeros(1 << (31 - _HIGH), dtype=torch.int64)
    for block in blocks():
        coarse += torch.bincount(_bits(block) >> _HIGH, minlength=coarse.numel())
    wanted = math.ceil(density * int(coarse.sum()))
    if not wanted:
        return 0.0
    top, above = _place(coarse, wanted)
    fine = torch.zeros(1 << _HIGH, dtype=torch.int64)
    for block in blocks():
        bits = _bits(block)
        fine += torch.bincount(bits[bits >> _HIGH == top] & ((1 << _HIGH) - 1), minlength=fine.numel())
    low, _ = _place(fine, wanted - above)
    return float(torch.tensor([(top << _HIGH) | low], dtype=torch.int32).view(torch.float32))


def _bits(block: torch.Tensor) -> torch.Tensor:
    return block.abs().reshape(-1).view(torch.int32)


def _place(counts: torch.Tensor, wanted: int) -> tuple[int, int]:
    """The bin that holds the ``wanted`` largest number, and how many lie above it."""
    above = counts.flip(0).cumsum(0)
    at = int(torch.searchsorted(above, wanted))
    return counts.numel() - 1 - at, int(above[at - 1]) if at else 0


def _ties(differences: list[torch.Tensor], weights: Sequence[float], thresholds: Sequence[float]) -> torch.Tensor:
    """Trim, elect sign, merge (Yadav et al., TIES-Merging, arXiv:2306.01708), with weights in all three places."""
    kept = [d.mul_(d.abs() >= t) for d, t in zip(differences, thresholds, strict=True)]
    sign = sum(d * w for d, w in zip(kept, weights, strict=True)).sign()  # type: ignore[union-attr]
    total, shares = torch.zeros_like(kept[0]), torch.zeros_like(kept[0])
    for d, w in zip(kept, weights, strict=True):
        agrees = (d.sign() * math.copysign(1.0, w) == sign) & (d != 0)
        total.add_(d.mul_(agrees), alpha=w)
        shares.add_(agrees, alpha=abs(w))
    return total.div_(shares.clamp_min_(torch.finfo(shares.dtype).tiny))


def _dropped(difference: torch.Tensor, density: float, generator: torch.Generator) -> torch.Tensor:
    """A random share of the numbers, scaled so that the mean stays (Yu et al., DARE, arXiv:2311.03099)."""
    kept = torch.empty_like(difference).bernoulli_(density, generator=generator)
    return difference.mul_(kept).div_(density)
