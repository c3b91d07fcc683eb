"""``rebasin.interpolation``: models on the line between models, evaluated and saved."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from ...merging import reset_batchnorm
from ...params import interpolate

__all__ = ["Interpolation", "LerpSimple", "parse_logging_level"]

Device = torch.device | str | None
_LEVELS = ("DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL")


def parse_logging_level(logging_level: int | str) -> int:
    """The number of a level of ``logging``. ``TypeError``, or ``AssertionError`` for what is no level."""
    if isinstance(logging_level, str):
        _require(logging_level.upper() in _LEVELS, f"logging_level: expected one of {_LEVELS}, got {logging_level!r}")
        return int(getattr(logging, logging_level.upper()))
    if not isinstance(logging_level, int):
        raise TypeError(f"logging_level: expected an int or a str, got {logging_level!r}")
    _require(logging_level in (10, 20, 30, 40, 50), f"logging_level: expected 10 to 50, got {logging_level}")
    return logging_level


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


class Interpolation:
    """What all interpolations share; use :class:`LerpSimple`.

    Args:
        models: at least two modules of the same architecture.
        eval_fn: ``eval_fn(model, device) -> float``, called with every interpolated model.
        eval_mode: "min" or "max": which metric is the best.
        train_dataloader: recomputes the BatchNorm statistics of every interpolated model.
        dataset_percentage: share of it to use, 0 to 1.
        dataset_iterations: if positive, how many batches of it to use instead.
        input_indices: where in a batch the inputs of the model are.
        devices: checked, and without effect: the models stay where they are.
        device_interp: where the interpolated models go; None: where the first model of the pair is.
        savedir: a folder for the state dicts of the interpolated models.
        logging_level: at "INFO" or below, metrics are printed.

    ``metrics_interpolated``: the metrics in order; ``best_metric`` and ``best_model``. ``AssertionError`` or
    ``TypeError`` for arguments of the wrong kind.
    """

    best_model: nn.Module

    def __init__(
        self,
        models: Sequence[nn.Module],
        eval_fn: Callable[[nn.Module, Any], Any] = lambda model, device: 0.0,
        eval_mode: str = "min",
        train_dataloader: DataLoader[Any] | None = None,
        dataset_percentage: float = 1.0,
        dataset_iterations: int = -1,
        input_indices: Sequence[int] | int = 0,
        devices: Sequence[torch.device | str] | None = None,
        device_interp: Device = None,
        savedir: Path | str | None = None,
        logging_level: int | str = "ERROR",
    ) -> None:
        indices = input_indices if isinstance(input_indices, Sequence) else [input_indices]
        _require(isinstance(models, Sequence), "models: expected a sequence")
        _require(all(isinstance(m, nn.Module) for m in models), "models: expected modules")
        _require(len(models) > 1, "models: at least two are needed")
        _require(callable(eval_fn), "eval_fn: expected a function")
        _require(eval_mode in ("min", "max"), f"eval_mode: expected 'min' or 'max', got {eval_mode!r}")
        _require(isinstance(train_dataloader, DataLoader | None), "train_dataloader: expected a DataLoader or None")
        _require(
            isinstance(dataset_percentage, float) and 0 <= dataset_percentage <= 1,
            f"dataset_percentage: expected a float from 0.0 to 1.0, got {dataset_percentage!r}",
        )
        _require(isinstance(dataset_iterations, int), "dataset_iterations: expected an int")
        _require(all(isinstance(i, int) for i in indices), f"input_indices: expected ints, got {input_indices!r}")
        _require(devices is None or len(devices) == len(models), "devices: expected one for each model")
        _require(isinstance(device_interp, str | torch.device | None), "device_interp: expected a device")
        _require(isinstance(savedir, Path | str | None), "savedir: expected a path")
        self.logging_level = parse_logging_level(logging_level)
        self.models = models
        self.eval_fn = eval_fn
        self.eval_mode = eval_mode
        self.train_dataloader = train_dataloader
        self.dataset_percentage = dataset_percentage
        self.dataset_iterations = dataset_iterations
        self.input_indices = list(indices)
        self.devices = devices if devices is not None else [None] * len(models)
        self.device_interp = device_interp
        self.savedir = None if savedir is None else Path(savedir)
        self.metrics_interpolated: list[float] = []
        self.best_metric = math.inf if eval_mode == "min" else -math.inf

    def interpolate(self, steps: int = 20, savedir: str | Path | None = None) -> None:
        """Makes and evaluates the models between the given ones."""
        raise NotImplementedError("use a subclass, such as LerpSimple")


class LerpSimple(Interpolation):
    """Straight lines between neighbours in the list of models."""

    def interpolate(self, steps: int = 20, savedir: str | Path | None = None) -> None:
        """Makes ``steps`` models between each two neighbours, at shares (k + 1) / (steps + 2) of the second.

        All parameters are interpolated; buffers are the first model's, or recomputed from ``train_dataloader``.
        ``savedir`` replaces the constructor's; files are named ``interp_models_{i}_{i + 1}_perc_{share:.3f}.pt``.
        """
        folder = self.savedir if savedir is None else Path(savedir)
        for step in range(steps):
            share = (step + 1) / (steps + 2)
            for index, (first, second) in enumerate(zip(self.models[:-1], self.models[1:], strict=True)):
                model = self._between(first, second, share)
                self._judge(model)
                if folder is not None:
                    torch.save(model.state_dict(), folder / f"interp_models_{index}_{index + 1}_perc_{share:.3f}.pt")

    def _between(self, first: nn.Module, second: nn.Module, share: float) -> nn.Module:
        model = copy.deepcopy(first)
        a, b = ({name: p.detach().cpu() for name, p in end.named_parameters()} for end in (first, second))
        with torch.no_grad():
            mixed = interpolate(a, b, share)
            for name, parameter in model.named_parameters():
                parameter.copy_(mixed[name])
        if self.device_interp is not None:
            model = model.to(self.device_interp)
        if self.train_dataloader is not None:
            reset_batchnorm(model, self._batches(self.train_dataloader))
        return model

    def _batches(self, loader: DataLoader[Any]) -> Iterator[Any]:
        share = math.ceil(len(loader) * self.dataset_percentage)
        for batch in islice(loader, self.dataset_iterations if self.dataset_iterations > 0 else share):
            yield tuple(batch[i] for i in self.input_indices) if isinstance(batch, tuple | list) else batch

    def _judge(self, model: nn.Module) -> None:
        metric = self.eval_fn(model, self.device_interp)
        self.metrics_interpolated.append(metric)
        if self.logging_level <= logging.INFO:
            print(f"metric {metric}")
        if metric < self.best_metric if self.eval_mode == "min" else metric > self.best_metric:
            self.best_metric, self.best_model = metric, model
