"""BatchNorm statistics of a merged network, computed anew.

The running statistics of two networks averaged are not those of the averaged network: its activations vary less (their
variance collapses with depth), so it fails although its weights are good. Sources: Jordan et al., *REPAIR*
(arXiv:2211.08403); Ainsworth et al., *Git Re-Basin* (arXiv:2209.04836), appendix on BatchNorm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..batches import check_batches, device_of, inputs_of, to_device
from ..errors import InvalidParamsError


class UnresetBatchNormWarning(UserWarning):
    """Running statistics were averaged with the weights and not computed anew for the averaged network."""


def batchnorm_layers(module: nn.Module) -> dict[str, _BatchNorm]:
    """{path: layer} of the module's BatchNorm layers that keep running statistics, each once."""
    return {
        path: layer
        for path, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def reset_batchnorm(module: nn.Module, batches: Iterable[Any]) -> int:
    """Compute the running statistics of every BatchNorm layer anew as the plain average over ``batches``.

    Each batch counts the same (torch's cumulative mode, ``momentum=None``): the mean of the batches' means and of their
    unbiased variances. Only the BatchNorm layers run in training mode, so dropout stays off and no weight changes.
    Gradients, ``training`` flags and momentum of all layers are as before afterwards. SyncBatchNorm and other
    subclasses count as BatchNorm; layers without running statistics are skipped.

    Args:
        module: changed in place: only running statistics and ``num_batches_tracked``.
        batches: one pass is made. A batch is what the module takes as its one argument, or a tuple or list that begins
            with that, such as (inputs, targets). Tensors are moved to the module's device.

    Returns:
        The number of layers whose statistics were reset: 0, without a look at ``batches``, where the module has none. A
        layer that no batch reached keeps its old statistics and is not counted.

    Raises:
        ValueError: there are no batches.
        TypeError: ``batches`` is one tensor, not a list or another iterable of batches.
        InvalidParamsError: the new statistics of a layer are not finite; ``tensor`` names them.
        Whatever the module or ``batches`` raises. The old statistics are back in place after every error.
    """
    check_batches(batches)
    layers = batchnorm_layers(module)
    if not layers:
        return 0
    device = device_of(module)
    with training_only(module, layers), _restored_on_error(layers) as before, torch.no_grad():
        for layer in layers.values():
            layer.momentum = None
            layer.reset_running_stats()
        count = 0
        for batch in batches:
            module(to_device(inputs_of(batch), device))
            count += 1
        if count == 0:
            raise ValueError("batches: at least one batch is needed, there is none")
        return sum(_settle(path, layer, before[path]) for path, layer in layers.items())


def _settle(path: str, layer: _BatchNorm, before: dict[str, torch.Tensor]) -> bool:
    """Check a layer's new statistics; a layer that was not reached gets its old ones back. True where it was."""
    if layer.num_batches_tracked is None or layer.num_batches_tracked.item() == 0:
        _restore(layer, before)
        return False
    for name in ("running_mean", "running_var"):
        if not bool(torch.isfinite(getattr(layer, name)).all()):
            tensor = f"{path}.{name}" if path else name
            raise InvalidParamsError(f"tensor {tensor!r}: the statistics over the batches are not finite", tensor)
    return True


@contextmanager
def training_only(module: nn.Module, layers: dict[str, _BatchNorm]) -> Iterator[None]:
    """Evaluation mode for all but ``layers``; flags and momentum are restored."""
    flags = [(part, part.training) for part in module.modules()]
    momenta = [(layer, layer.momentum) for layer in layers.values()]
    try:
        module.eval()
        for layer in layers.values():
            layer.training = True
        yield
    finally:
        for part, flag in flags:
            part.training = flag
        for layer, momentum in momenta:
            layer.momentum = momentum


@contextmanager
def _restored_on_error(layers: dict[str, _BatchNorm]) -> Iterator[dict[str, dict[str, torch.Tensor]]]:
    before = {
        path: {name: value.clone() for name, value in layer.named_buffers(recurse=False)}
        for path, layer in layers.items()
    }
    done = False
    try:
        yield before
        done = True
    finally:
        if not done:
            for path, layer in layers.items():
                _restore(layer, before[path])


def _restore(layer: _BatchNorm, before: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in layer.named_buffers(recurse=False):
            value.copy_(before[name])
