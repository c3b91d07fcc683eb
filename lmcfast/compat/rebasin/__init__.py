"""``rebasin``: match and merge any modules, from their forward pass. ``rebasin.interpolation`` is a module here too."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import nn

from ...matching.many import match_many
from ...matching.weight_matching import weight_matching
from ...params import apply_permutations
from ...spec import PermutationSpec, derive_spec
from . import interpolation as interpolation
from .interpolation import parse_logging_level

__all__ = ["MergeMany", "PermutationCoordinateDescent", "interpolation"]

Device = torch.device | str | None
State = dict[str, torch.Tensor]


class PermutationCoordinateDescent:
    """Moves the units of ``model_b``, in place, to where its weights lie closest to ``model_a``'s.

    What may move is derived from the forward pass of ``model_b`` (:func:`lmcfast.derive_spec`), so its output does not
    change. ``permutations``, ``spec`` and ``result`` hold what :meth:`calculate_permutations` found.

    Args:
        model_a, model_b: modules of the same architecture.
        input_data_b: what ``model_b`` takes: a tensor, a tuple or list of positional arguments, or a dict of keyword
            arguments. Only shapes and dtypes matter.
        input_data_a, device_a, device_b: without effect: ``model_a`` is not run, and both models stay where they are.
        logging_level: at "INFO" or below, the steps are printed.
    """

    def __init__(
        self,
        model_a: nn.Module,
        model_b: nn.Module,
        input_data_b: Any,
        input_data_a: Any | None = None,
        device_a: Device = None,
        device_b: Device = None,
        logging_level: int | str = logging.ERROR,
    ) -> None:
        self.model_a = model_a
        self.model_b = model_b
        self.device_a = device_a
        self.device_b = device_b
        self.logging_level = parse_logging_level(logging_level)
        self.spec = _spec_of(model_b, input_data_b)
        self.permutations = self.spec.bind(_state_of(model_b)).identity()

    def rebasin(self, max_iterations: int = 100) -> None:
        """:meth:`calculate_permutations`, then :meth:`apply_permutations`."""
        self.calculate_permutations(max_iterations)
        self.apply_permutations()

    def calculate_permutations(self, max_iterations: int = 100) -> None:
        """Weight matching, of at most ``max_iterations`` sweeps."""
        self.result = weight_matching(
            self.spec, _state_of(self.model_a), _state_of(self.model_b), max_sweeps=max_iterations
        )
        self.permutations = self.result.permutations
        if self.logging_level <= logging.INFO:
            print(self.result.trace_table())

    def apply_permutations(self) -> None:
        """Moves the units of ``model_b`` by the permutations; parameters and buffers stay the same objects."""
        self.model_b.load_state_dict(apply_permutations(self.spec, self.permutations, _state_of(self.model_b)))


class MergeMany:
    """Merges models after bringing each to the mean of the others, in turn, until nothing more is gained.

    Args:
        models: modules, or files of their state dicts. They are moved in place; files are written again.
        working_model: a module of the same architecture; holds the merged weights after :meth:`run`.
        input_data: as ``input_data_b`` of :class:`PermutationCoordinateDescent`.
        device: where the files are loaded to.
        logging_level: at "INFO" or below, the outcome is printed.
    """

    def __init__(
        self,
        models: Sequence[nn.Module | str | PathLike[str]],
        working_model: nn.Module,
        input_data: Any,
        device: Device = None,
        logging_level: str | int = logging.ERROR,
    ) -> None:
        self.models = models
        self.working_model = working_model
        self.input_data = input_data
        self.device = device
        self.logging_level = parse_logging_level(logging_level)
        self._merged_model: nn.Module | None = None

    @property
    def merged_model(self) -> nn.Module:
        """The merged model; ``AttributeError`` before :meth:`run`."""
        if self._merged_model is None:
            raise AttributeError("The merged model has not been calculated yet. Please call MergeMany.run() first.")
        return self._merged_model

    def run(self, max_iterations: int = 100, max_iterations_pcd: int = 100) -> nn.Module:
        """Matches and merges. The mean is over parameters; buffers are the first model's.

        Args:
            max_iterations: rounds over all models at most.
            max_iterations_pcd: sweeps of each matching at most.
        """
        spec = _spec_of(self.working_model, self.input_data)
        states = [self._load(model) for model in self.models]
        found = match_many(spec, states, max_rounds=max_iterations, max_sweeps=max_iterations_pcd)
        aligned = found.apply()
        buffers = {name: aligned[0][name] for name, _ in self.working_model.named_buffers() if name in aligned[0]}
        merged = found.merge() | buffers  # before the models, which the states may share their memory with, are moved
        for model, state in zip(self.models, aligned, strict=True):
            if isinstance(model, nn.Module):
                model.load_state_dict(state)
            else:
                torch.save(state, model)
        self.working_model.load_state_dict(merged)
        self._merged_model = copy.deepcopy(self.working_model)
        if self.logging_level <= logging.INFO:
            print(found)
        return self._merged_model

    def _load(self, model: nn.Module | str | PathLike[str]) -> State:
        if isinstance(model, nn.Module):
            return _state_of(model)
        state: State = torch.load(model, map_location=self.device)
        return state


def _state_of(model: nn.Module) -> State:
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def _spec_of(model: nn.Module, input_data: Any) -> PermutationSpec:
    if isinstance(input_data, Mapping):
        return derive_spec(model, (), dict(input_data))
    return derive_spec(model, tuple(input_data) if isinstance(input_data, list) else input_data)
