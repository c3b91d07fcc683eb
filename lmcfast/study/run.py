"""The study of one network on one data set: trainings, matchings, measures, each kept in a folder as it is done."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..errors import CheckpointError
from ..params import apply_permutations
from ..spec import check_params, spec_from_params
from .data import Dataset
from .demo import one_thread
from .matches import find_match, match_settings
from .measures import Bench, measure_networks, measure_search, measure_triple
from .settings import Search, StudySettings, Triple
from .store import FORMAT, Store, data_fingerprint, params_fingerprint
from .training import build, train

Progress = Callable[[str, int, int], object]
NONE = "none"  # B as it is


@dataclass(frozen=True, eq=False)
class _Network:
    """A trained network: its tensors, their hash, what is told of it."""

    params: dict[str, Tensor]
    fingerprint: str
    facts: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Match:
    """Permutations, all that they depend on, what is told of their search."""

    permutations: dict[str, Tensor]
    key: dict[str, Any]
    facts: dict[str, Any]


def run_study(
    out: str | os.PathLike[str], data: Dataset, settings: StudySettings, progress: Progress | None = None
) -> dict[str, Any]:
    """Train, match and measure; everything is kept in the folder ``out`` as soon as it is known.

    The same call goes on where an earlier one was stopped, and does again only what other settings or data ask for. A
    trained network may be put into ``out/networks`` as ``<network>-w<width>-<seed>.safetensors`` (by hand: its recipe
    is then taken on trust, and the result says so).

    Args:
        data: images and labels; Vgg11 takes 32 x 32 images (:func:`padded`).
        progress: called as ``progress(stage, done, total)``.

    Returns:
        Plain values, which ``study_tables``, ``study_claims`` and ``write_report`` take: settings, data, machine,
        networks, spectra and inputs, {method: {search: measures}}, {method: {triple: measures}}.

    Raises ``CheckpointError`` naming a file or the folder, ``ValueError`` naming a setting.
    """
    store = Store(Path(out))
    # an MLP's products are small: more threads are no faster, and far slower where they have to share their cores
    with one_thread() if settings.network == "mlp" else nullcontext():
        return _run(_Study(store, data, settings, progress or (lambda stage, done, total: None)))


def _run(study: _Study) -> dict[str, Any]:
    data, settings = study.data, study.settings
    network = settings.factory(data)
    module = build(network, 0).eval()
    networks = {seed: study.trained(module, seed) for seed in settings.needed_seeds()}
    first = next(iter(networks.values()))
    spec = check_params(spec_from_params(first.params), first.params, "params")
    study.bench = Bench(module, spec, data, settings)
    for seed, one in networks.items():
        one.facts.update(study.network_losses(seed, one))
    searches: dict[str, dict[str, Any]] = {method: {} for method in (NONE, *settings.methods)}
    triples: dict[str, dict[str, Any]] = {method: {} for method in (NONE, *settings.methods)}
    for method in searches:
        for search in settings.search_list():
            searches[method][str(search)] = study.search(method, search, networks)
        for place, triple in enumerate(settings.triple_list()):
            triples[method][str(triple)] = study.triple(method, triple, networks, with_plane=place == 0)
    return {
        "lmcfast": __version__,
        "format": FORMAT,
        "settings": asdict(settings),
        "ste_steps": settings.ste_steps(data),
        "data": {"name": data.name, "fingerprint": study.data_key, "images": _images(data)},
        "machine": machine(),
        "networks": {str(seed): one.facts for seed, one in networks.items()},
        "alone": study.alone(networks),
        "searches": searches,
        "triples": triples,
    }


def _images(data: Dataset) -> dict[str, Any]:
    shape = list(data.train_inputs.shape[1:])
    return {"training": len(data.train_inputs), "test": len(data.test_inputs), "shape": shape, "classes": data.classes}


def machine() -> dict[str, Any]:
    """Date, processor, cores and versions, to be told beside the figures."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "date": time.strftime("%Y-%m-%d"), "processor": name, "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(),
        "system": platform.system(),
    }  # fmt: skip


class _Study:
    """One run: the folder, and the networks' module once there is a spec."""

    bench: Bench

    def __init__(self, store: Store, data: Dataset, settings: StudySettings, progress: Progress) -> None:
        self.store, self.data, self.settings, self.progress = store, data, settings, progress
        self.data_key = data_fingerprint(data)

    def trained(self, module: torch.nn.Module, seed: int) -> _Network:
        """The network of a seed: from the folder, or trained and put there."""
        settings = self.settings
        label = settings.label()
        path = self.store.network_path(label, seed)
        key = {"network": label, "recipe": asdict(settings.recipe), "seed": seed, "data": self.data_key}
        kept = self.store.network(path, key)
        if kept is None:
            began, state = time.perf_counter(), self.store.state_path(path, key)
            stage = f"train {seed}"
            made = train(
                settings.factory(self.data), self.data, settings.recipe, seed,
                progress=lambda done, total: self.progress(stage, done, total), state=state,
            )  # fmt: skip
            tensors = {name: tensor.detach().clone() for name, tensor in made.state_dict().items()}
            self.store.keep_network(path, key, tensors)
            self.store.drop_states(path)
            facts: dict[str, Any] = {"given": False, "seconds": time.perf_counter() - began}
        else:
            tensors, given = kept
            facts = {"given": given}
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            line = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"{path}: is not a {label} network for these images: {line}", str(path)) from error
        return _Network(tensors, params_fingerprint(tensors), {**facts, "fingerprint": params_fingerprint(tensors)})

    def network_losses(self, seed: int, one: _Network) -> dict[str, float]:
        key = {"network": one.fingerprint, "images": self.settings.images}
        return self._kept(f"network-{seed}", key, lambda: self.bench.losses(one.params, f"of network {seed}"))

    def alone(self, networks: Mapping[int, _Network]) -> dict[str, Any]:
        names = [one.fingerprint for one in networks.values()]
        key = {"networks": names, "images": self.settings.costly_images}
        models = [one.params for one in networks.values()]
        return self._kept("networks", key, lambda: measure_networks(self.bench, models))

    def search(self, method: str, search: Search, networks: Mapping[int, _Network]) -> dict[str, Any]:
        """Match the pair and measure it."""
        a, b = networks[search.anchor], networks[search.model]
        match = self.matched(method, search, networks)
        found = self._kept(
            f"search-{method}-{search}",
            {"match": match.key, **self._measuring()},
            lambda: measure_search(self.bench, a.params, b.params, match.permutations, merged=method != NONE),
        )
        told = dict(match.facts)
        if "wm" in self.settings.methods:
            told["as_wm"] = _agreement(match.permutations, self.matched("wm", search, networks).permutations)
        return {**found, "match": told}

    def triple(self, method: str, triple: Triple, networks: Mapping[int, _Network], with_plane: bool) -> dict[str, Any]:
        """Match both networks to the anchor, and measure the three."""
        b, c = (self.matched(method, search, networks) for search in triple.searches())
        keys = {"b": b.key, "c": c.key, "plane": with_plane, "resolution": self.settings.resolution}
        params = [networks[seed].params for seed in (triple.anchor, triple.b, triple.c)]

        def measure() -> dict[str, Any]:
            aligned_b = apply_permutations(self.bench.spec, b.permutations, params[1])
            aligned_c = apply_permutations(self.bench.spec, c.permutations, params[2])
            return measure_triple(self.bench, params[0], aligned_b, aligned_c, with_plane)

        return self._kept(f"triple-{method}-{triple}", {**keys, **self._measuring()}, measure)

    def _measuring(self) -> dict[str, Any]:
        settings = self.settings
        return {"images": settings.images, "costly_images": settings.costly_images, "points": settings.points}

    def matched(self, method: str, search: Search, networks: Mapping[int, _Network]) -> _Match:
        """The permutations of the search, from the folder, or found and put there."""
        a, b = networks[search.anchor], networks[search.model]
        key: dict[str, Any] = {"method": method, "a": a.fingerprint, "b": b.fingerprint}
        if method == NONE:
            return _Match(self.bench.spec.identity(), key, {})
        key |= match_settings(method, self.settings, self.data, self.data_key)
        name = f"{method}-{search}"
        facts = self.store.result(f"match-{name}", key)
        kept = None if facts is None else self.store.permutations(name, facts["permutations"])
        if facts is None or kept is None:
            self.store.drop_results(f"search-{name}", f"triple-{method}-*")  # of other permutations
            stage = f"match {name}"
            began = time.perf_counter()
            result = find_match(
                method, self.bench, a.params, b.params, seed=search.model,
                progress=lambda done, total: self.progress(stage, done, total),
            )  # fmt: skip
            kept, seconds = dict(result.permutations), time.perf_counter() - began
            facts = {"seconds": seconds, "objective": result.objective, "best_step": getattr(result, "best_step", None)}
            facts["permutations"] = self.store.keep_match(name, result)
            self.store.keep_result(f"match-{name}", key, facts)
        return _Match(kept, key, facts)

    def _kept(self, name: str, key: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The result of this name and key from the folder, or measured and put there."""
        whole = {**key, "data": self.data_key, "format": FORMAT}
        found = self.store.result(name, whole)
        if found is None:
            stage = f"measure {name}"
            self.progress(stage, 0, 1)
            found = dict(measure())
            self.store.keep_result(name, whole, found)
            self.progress(stage, 1, 1)
        return found


def _agreement(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> float:
    """Share of the units that both permutations place alike."""
    same = sum(int(one[group].eq(two[group]).sum()) for group in one)
    return same / sum(len(setting) for setting in one.values())
