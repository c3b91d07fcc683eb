"""One run of a large merge: matched family by family, written shard by shard, a journal of what is done beside it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import CheckpointError, LmcfastError, OptionError
from ..io import check_writable_folder, same_file, write_permutations
from ..io.atomic import StrPath, reason
from ..io.shard_writer import flush_folder, header_bytes
from ..io.shards import DTYPES, LazyCheckpoint, Shard, dtype_code
from ..spec import PermutationSpec
from .choice import FamilyFigures, FolderOptions, MergedFolder, Progress, figures_of, plan_families
from .families import Family
from .journal import Journal
from .matchmaking import Matched, Memory, given_match, match_apart, match_together
from .methods import Recipe
from .planning import check_memory
from .provenance import (
    PERMUTATIONS,
    PROVENANCE,
    Hashes,
    copy_companions,
    is_finished,
    run_identity,
    write_index,
    write_text,
)
from .seen import Model
from .slots import Setting
from .sources import open_sources, prove_spec, source_state
from .stream import Aligned, merge_shard


class Run:
    """One run; ``recipe`` None: align the second model alone."""

    def __init__(
        self,
        paths: Sequence[StrPath],
        out: StrPath,
        options: FolderOptions,
        recipe: Recipe | None,
        callback: Progress | None,
        permutations: Sequence[Setting] | None = None,
    ) -> None:
        self.permutations = permutations
        self.paths, self.out, self.options, self.recipe = list(paths), Path(out), options, recipe
        self.callback = callback
        self.done = {"match": 0, "merge": 0}
        self.total = {"match": 0, "merge": 0}
        self.seconds: dict[str, float] = {}
        self.resumed = 0
        self.notes: list[str] = []

    def go(self) -> MergedFolder:
        self._check_output()
        if self.options.dtype is not None and dtype_code(self.options.dtype) is None:
            raise OptionError(f"must be one of {', '.join(n for n, _ in DTYPES.values())}", "dtype")
        sources = open_sources(self.paths, any_dtype=self.options.dtype is not None)
        try:
            return self._opened(sources)
        finally:
            for source in sources:
                source.close()

    def _check_output(self) -> None:
        check_writable_folder(self.out)
        if not self.out.absolute().parent.is_dir():
            raise CheckpointError(f"{self.out}: folder {self.out.absolute().parent} does not exist", str(self.out))
        for path in self.paths:
            folder = Path(path) if Path(path).is_dir() else Path(path).parent
            if same_file(self.out, folder) or (self.out.exists() and same_file(self.out.parent, path)):
                raise CheckpointError(f"{self.out}: the output would overwrite an input", str(self.out))

    def _opened(self, sources: list[LazyCheckpoint]) -> MergedFolder:
        identity = run_identity(self._described(), sources)
        work = self.out.absolute().with_name(f".{self.out.absolute().name}.lmcfast")
        if is_finished(self.out, identity, sources):
            shutil.rmtree(work, ignore_errors=True)
            return MergedFolder(self.out, finished=True, notes=(f"{self.out}: finished already",))
        if self.out.exists() and any(self.out.iterdir()):
            raise CheckpointError(f"{self.out}: exists and is not empty; give a new folder", str(self.out))
        self._check_space(sources, work)
        run = {"identity": identity, "sources": [source_state(source) for source in sources]}
        with Journal(work, run, self.options.resume) as journal:
            self.resumed = sum(line.get("kind") in ("visit", "shard") for line in journal.lines)
            try:
                return self._work(sources, journal, identity)
            except LmcfastError as error:
                worth = any(line.get("kind") in ("visit", "shard") for line in journal.lines)
                if not isinstance(error, CheckpointError) or not worth:
                    journal.remove()
                raise

    def _described(self) -> dict[str, Any]:
        """The options that decide the result."""
        options = {
            k: v
            for k, v in asdict(replace(self.options, spec="")).items()
            if k not in ("max_memory", "resume", "prove")
        }
        spec = self.options.spec
        options["spec"] = spec.fingerprint if isinstance(spec, PermutationSpec) else os.fspath(spec)
        options["threads"] = torch.get_num_threads()
        recipe = asdict(self.recipe) if self.recipe is not None else {"method": "align"}
        if self.permutations is not None:
            options["permutations"] = [_digest(setting) for setting in self.permutations]
        return {**options, **recipe, "base": bool(self.recipe and self.recipe.needs_base)}

    def _check_space(self, sources: Sequence[LazyCheckpoint], work: Path) -> None:
        layout = sources[0 if self.recipe is not None else 1]
        need = output_size(layout, self.options.dtype)
        have = shutil.disk_usage(self.out.absolute().parent).free
        have += sum(path.stat().st_size for path in work.rglob("*") if path.is_file()) if work.exists() else 0
        if need > have:
            raise CheckpointError(
                f"{self.out}: needs {need / 1e9:.2f} GB, and {have / 1e9:.2f} GB are free on its disk", str(self.out)
            )

    # ---- the phases

    def _work(self, sources: list[LazyCheckpoint], journal: Journal, identity: str) -> MergedFolder:
        started = time.perf_counter()
        spec, models, parts = plan_families(sources, self.options, self.notes)
        check_memory(spec, models, parts, self.options.max_memory)
        proved = self._prove(sources[0], journal)
        self.seconds["setup"] = time.perf_counter() - started
        started = time.perf_counter()
        matched = self._match(spec, models, parts, journal)
        self.seconds["match"] = time.perf_counter() - started
        started = time.perf_counter()
        target = journal.folder / "output"
        aligned = [Aligned(models[0], spec.identity())]
        aligned += [Aligned(model, found.setting) for model, found in zip(models[1:], matched, strict=True)]
        written, hashes = self._merge(sources, aligned, journal, target)
        figures = figures_of(matched)
        self._finish(sources, spec, matched, figures, hashes, target, identity, proved, written)
        self.seconds["merge"] = time.perf_counter() - started
        journal.remove()
        return MergedFolder(
            self.out,
            figures,
            tuple((found.before, found.after) for found in matched),
            sum(self.done.values()),
            written,
            self.seconds,
            self.resumed,
            False,
            proved,
            tuple(self.notes),
        )

    def _prove(self, source: LazyCheckpoint, journal: Journal) -> bool:
        if self.options.spec != "auto" or not self.options.prove:
            return False
        known = journal.find("proof", "spec")
        if known is None:
            journal.add({"kind": "proof", "name": "spec", "proved": prove_spec(source)})
            known = journal.find("proof", "spec")
        return bool(known and known["proved"])

    def _match(
        self, spec: PermutationSpec, models: Sequence[Model], parts: Sequence[Family], journal: Journal
    ) -> list[Matched]:
        pairs = sum(_bytes_of(model, family) for model in (models[0], models[0]) for family in parts)
        self.total["match"] = pairs * (len(models) - 1) * (1 if self.options.residual == "keep" else 3)

        def told(what: str, count: int) -> None:
            self._tell("match", what, count)

        found = []
        for which, model in enumerate(models[1:], 1):
            memory = Memory(journal, which)
            if self.permutations is not None:
                found.append(given_match(spec, parts, models[0], model, self.permutations[which - 1], memory))
            elif self.options.residual == "keep":
                found.append(match_apart(spec, parts, models[0], model, memory, told))
            else:
                sweeps = self.options.max_sweeps
                found.append(match_together(spec, parts, models[0], model, memory, sweeps, told))
        return found

    def _merge(
        self, sources: Sequence[LazyCheckpoint], aligned: Sequence[Aligned], journal: Journal, target: Path
    ) -> tuple[int, dict[str, str]]:
        target.mkdir(exist_ok=True)
        if self.recipe is None:
            aligned = aligned[1:]
        layout = sources[0 if self.recipe is not None else 1]
        known = {str(line["name"]): str(line["sha256"]) for line in journal.lines if line.get("kind") == "sha256"}
        hashes = Hashes(_by_turns(sources), known)
        self.total["merge"] = layout.size * len(aligned)
        try:
            for shard in layout.shards:
                if journal.find("shard", shard.path.name) is None:
                    merge_shard(
                        shard,
                        target / shard.path.name,
                        aligned,
                        self.recipe,
                        self.options.dtype,
                        lambda count, name=shard.path.name: self._tell("merge", name, count),  # type: ignore[misc]
                    )
                    journal.add({"kind": "shard", "name": shard.path.name})
                else:
                    self._tell("merge", shard.path.name, shard.size * len(aligned))
                for name, digest in hashes.done():
                    journal.add({"kind": "sha256", "name": name, "sha256": digest})
            hashes.done(wait=True)
        finally:
            hashes.stop()
        written = sum((target / shard.path.name).stat().st_size for shard in layout.shards)
        return written, hashes.found

    def _finish(
        self,
        sources: Sequence[LazyCheckpoint],
        spec: PermutationSpec,
        matched: Sequence[Matched],
        figures: Sequence[FamilyFigures],
        hashes: Mapping[str, str],
        target: Path,
        identity: str,
        proved: bool,
        written: int,
    ) -> None:
        layout = sources[0 if self.recipe is not None else 1]
        copy_companions(layout, target, self.options.dtype)
        write_index(layout, target, _tensor_bytes(layout, self.options.dtype))
        text = spec.to_json(folded=True)
        for which, found in enumerate(matched, 1):
            gap = max((visit.gap for visit in found.visits.values()), default=0.0)
            write_permutations(target / PERMUTATIONS.format(which), found.setting, text, found.after, gap)
        record = {
            "format": "lmcfast-merge",
            "version": 1,
            "run": identity,
            "lmcfast": __version__,
            "torch": torch.__version__,
            "options": self._described(),
            "spec": {"sha256": spec.fingerprint, "proved": proved},
            "sources": [
                {"path": source.path.name, "files": {s.path.name: hashes[str(s.path)] for s in source.shards}}
                for source in sources
            ],
            "permutations": [PERMUTATIONS.format(which) for which in range(1, len(matched) + 1)],
            "objective": [{"before": found.before, "after": found.after} for found in matched],
            "families": [asdict(entry) for entry in figures],
        }
        write_text(target / PROVENANCE, json.dumps(record, indent=1) + "\n")
        try:
            if self.out.is_dir():
                self.out.rmdir()
            os.rename(target, self.out.absolute())
        except OSError as error:
            raise CheckpointError(f"{self.out}: cannot write: {reason(error)}", str(self.out)) from error
        flush_folder(self.out.absolute().parent)

    def _tell(self, phase: str, what: str, count: int) -> None:
        self.done[phase] += count
        if self.callback is not None:
            self.callback(phase, what, self.done[phase], max(self.total[phase], self.done[phase]))


def _digest(setting: Setting) -> str:
    """A hash of permutations."""
    digest = hashlib.sha256()
    for name in sorted(setting):
        digest.update(f"{name} {tuple(setting[name].shape)}\n".encode())
        digest.update(setting[name].to(torch.int64).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _by_turns(sources: Sequence[LazyCheckpoint]) -> list[Shard]:
    """The files of all models in the order in which a merge comes by them."""
    most = max(len(source.shards) for source in sources)
    return [source.shards[k] for k in range(most) for source in sources if k < len(source.shards)]


def _bytes_of(model: Model, family: Family) -> int:
    return sum(model.files.entries[key].size for key in model.keys_of(family.tensors))


def _tensor_bytes(layout: LazyCheckpoint, dtype: str | None) -> int:
    width = DTYPES[dtype_code(dtype) or ""][1] if dtype is not None else 0
    return sum(e.numel * width if width and e.is_floating else e.size for e in layout.entries.values())


def output_size(layout: LazyCheckpoint, dtype: str | None) -> int:
    """Bytes of the output's shards, up to the digits of offsets."""
    heads = sum(
        len(header_bytes([(e.key, e.code, e.shape) for e in shard.entries], shard.metadata)) for shard in layout.shards
    )
    return _tensor_bytes(layout, dtype) + heads
