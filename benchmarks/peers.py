"""The other exact solvers, as one table. A solver that is not installed is a named skip."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Columns = NDArray[np.int64]


@dataclass(frozen=True)
class Call:
    """How a solver is called: ``function(cost, *arguments)`` is timed, ``columns`` of its result is not."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    columns: Callable[[Any], Any] = np.asarray


@dataclass(frozen=True)
class Peer:
    """A solver that minimises the sum of a float32 or float64 cost matrix.

    ``load(rectangular)`` imports it and gives the call for square or for wide problems (n <= m); ``load_batch`` the
    call for (batch, n, m), None where batches are a Python loop over the single call. ``distribution``: its name at
    pip. ``largest``: n beyond which it is not tried; 0: no limit.
    """

    name: str
    distribution: str
    load: Callable[[bool], Call]
    load_batch: Callable[[], Call] | None = None
    rectangular: bool = True
    largest: int = 0

    def version(self) -> str:
        return importlib.metadata.version(self.distribution)


class MissingPeerError(Exception):
    """A peer cannot be imported; the message is the reason."""


def column_of_rows(result: Any) -> Any:
    """Columns out of (rows, columns), rows sorted."""
    return result[1]


def mapping(result: Any) -> Any:
    """Columns out of (columns, rows)."""
    return result[0]


def pairs(result: Any) -> Any:
    """Columns out of (k, 2) pairs."""
    return result[np.argsort(result[:, 0]), 1]


def _attribute(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise MissingPeerError(str(error)) from error


def _simple(
    module: str, name: str, columns: Callable[[Any], Any], *arguments: Any, **options: Any
) -> Callable[[bool], Call]:
    def load(rectangular: bool) -> Call:
        function = _attribute(module, name)
        return Call(partial(function, **options) if options else function, arguments, columns)

    return load


def _extended(
    module: str, name: str, columns: Callable[[Any], Any], square: tuple[Any, ...], wide: tuple[Any, ...]
) -> Callable[[bool], Call]:
    """For solvers that take wide problems only with an option."""

    def load(rectangular: bool) -> Call:
        return Call(_attribute(module, name), wide if rectangular else square, columns)

    return load


def _jv(module: str, name: str, columns: Callable[[Any], Any]) -> Callable[[bool], Call]:
    """(cost, extend_cost, cost_limit, return_cost) of lap, lapx and their relatives."""
    return _extended(module, name, columns, (False, np.inf, False), (True, np.inf, False))


def _jv_batch(module: str, name: str) -> Callable[[], Call]:
    def load() -> Call:
        return Call(_attribute(module, name), (False, np.inf, False, 1), lambda result: np.stack(result[1]))

    return load


def _lapx(name: str, columns: Callable[[Any], Any]) -> Callable[[bool], Call]:
    """lapx and lap share the import name; this is lapx's."""

    def load(rectangular: bool) -> Call:
        try:
            importlib.metadata.version("lapx")
        except importlib.metadata.PackageNotFoundError as error:
            raise MissingPeerError("lapx is not installed") from error
        if name in ("lapjvs", "lapjvsa"):
            options = (None, False, False, True) if name == "lapjvs" else (None, False, True)
            return Call(_attribute("lap", name), options, columns)
        if name == "lapjvc":
            return Call(_attribute("lap", name), (False,), columns)
        return _jv("lap", name, columns)(rectangular)

    return load


def _lapx_batch(name: str) -> Callable[[], Call]:
    def load() -> Call:
        if name == "lapjvs_batch":
            return Call(_attribute("lap", name), (False, False, 1, True), lambda result: np.stack(result[1]))
        return _jv_batch("lap", name)()

    return load


def _lap_folder(folder: Path | None) -> Callable[[bool], Call]:
    """lap beside lapx: from a folder filled by ``pip install --target FOLDER --no-deps lap``."""

    def load(rectangular: bool) -> Call:
        alias = "lap_of_gatagat"
        if folder is None:
            raise MissingPeerError("shares its import name with lapx: pass the folder of a `pip install --target`")
        if alias not in sys.modules:
            package = folder / "lap"
            spec = importlib.util.spec_from_file_location(
                alias, package / "__init__.py", submodule_search_locations=[str(package)]
            )
            if spec is None or spec.loader is None or not package.exists():
                raise MissingPeerError(f"no package lap in {folder}")
            module = importlib.util.module_from_spec(spec)
            sys.modules[alias] = module
            spec.loader.exec_module(module)
        return _jv(alias, "lapjv", mapping)(rectangular)

    return load


@dataclass(frozen=True)
class _FolderPeer(Peer):
    folder: Path | None = None

    def version(self) -> str:
        found = importlib.metadata.distributions(name=self.distribution, path=[str(self.folder)])
        return next(iter(found)).version


def _algorithm_1015(epsilon: bool) -> Callable[[bool], Call]:
    def load(rectangular: bool) -> Call:
        solver = _attribute("py_lap_solver.solvers.lap1015_solver", "Lap1015Solver")
        return Call(solver(use_openmp=False, use_epsilon=epsilon).solve_single)

    return load


def _batched_scipy(method: str) -> Call:
    solver = _attribute("py_lap_solver.solvers.batched_scipy_solver", "BatchedScipySolver")
    return Call(getattr(solver(use_openmp=False), method))


def _fastlap(algorithm: str) -> Callable[[bool], Call]:
    return _simple("fastlap", "solve_lap", lambda result: np.array(result[1]), algorithm)


def _munkres_batch() -> Call:
    return Call(_attribute("munkres", "solve_batch"), (), lambda result: result.col_ind)


def all_peers(lap_folder: Path | None = None) -> list[Peer]:
    """Every peer of the table, installed or not."""
    x = "lapx"
    return [
        Peer("scipy", "scipy", _simple("scipy.optimize", "linear_sum_assignment", column_of_rows)),
        _FolderPeer("lap", "lap", _lap_folder(lap_folder), folder=lap_folder),
        Peer("lapx.lapjv", x, _lapx("lapjv", mapping)),
        Peer("lapx.lapjvx", x, _lapx("lapjvx", column_of_rows), _lapx_batch("lapjvx_batch")),
        Peer("lapx.lapjvxa", x, _lapx("lapjvxa", pairs)),
        Peer("lapx.lapjvc", x, _lapx("lapjvc", column_of_rows)),
        Peer("lapx.lapjvs", x, _lapx("lapjvs", mapping), _lapx_batch("lapjvs_batch")),
        Peer("lapx.lapjvsa", x, _lapx("lapjvsa", pairs)),
        Peer("lapx.lapjvr", x, _lapx("lapjvr", column_of_rows), _lapx_batch("lapjvr_batch")),
        Peer("lapx.lapjvh", x, _lapx("lapjvh", column_of_rows), _lapx_batch("lapjvh_batch")),
        Peer("lapjv", "lapjv", _simple("lapjv", "lapjv", mapping), rectangular=False),
        Peer("lapcpp", "lapcpp", _jv("lapcpp", "lapjv", column_of_rows), _jv_batch("lapcpp", "lapjv_batch")),
        Peer("laprust", "laprust", _jv("laprust", "lapjv", column_of_rows), _jv_batch("laprust", "lapjv_batch")),
        Peer("algorithm_1015", "py-lap-solver", _algorithm_1015(False)),
        Peer("algorithm_1015_epsilon", "py-lap-solver", _algorithm_1015(True)),
        Peer(
            "batched_scipy",
            "py-lap-solver",
            lambda rectangular: _batched_scipy("solve_single"),
            lambda: _batched_scipy("batch_solve"),
        ),
        Peer("fastlap.lapjv", "fastlap", _fastlap("lapjv")),
        Peer("fastlap.auction", "fastlap", _fastlap("auction"), largest=1024),
        Peer("nanolsap", "nanolsap", _simple("nanolsap", "linear_sum_assignment", column_of_rows)),
        Peer("minilsap", "minilsap", _simple("minilsap", "linear_sum_assignment", column_of_rows)),
        Peer("munkres", "munkres", _simple("munkres", "linear_sum_assignment", column_of_rows), _munkres_batch),
    ]


def loop(call: Call) -> Call:
    """A batch as a Python loop over the single call, which is what its users write."""

    def run(costs: Array, *arguments: Any) -> list[Any]:
        return [call.function(cost, *arguments) for cost in costs]

    return Call(run, call.arguments, lambda results: np.stack([call.columns(result) for result in results]))


def call_for(peer: Peer, shape: tuple[int, ...]) -> Call | None:
    """How the peer solves costs of this shape, n <= m; None where it cannot. Raises ``MissingPeerError``."""
    rectangular = shape[-1] != shape[-2]
    if rectangular and not peer.rectangular:
        return None
    if len(shape) == 2:
        return peer.load(rectangular)
    return peer.load_batch() if peer.load_batch is not None else loop(peer.load(rectangular))


def available(peers: list[Peer]) -> tuple[dict[str, str], dict[str, str]]:
    """Version of each peer that loads, reason for each that does not."""
    versions, missing = {}, {}
    for peer in peers:
        try:
            peer.load(False)
            versions[peer.name] = peer.version()
        except MissingPeerError as error:
            missing[peer.name] = str(error)
    return versions, missing
