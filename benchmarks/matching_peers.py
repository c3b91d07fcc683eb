"""The public Git Re-Basin codes, run as they are from a checkout that the user names.

The PyTorch port is github.com/themrzmaster/git-re-basin-pytorch; the authors' JAX code is
github.com/samuela/git-re-basin, which needs a jax that still has ``tree_map``, e.g. 0.4.30, and flax 0.8.5. Both take
{tensor: (group or None, ...)} and the weights; nothing of them is part of this repository.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Axes = Mapping[str, tuple[str | None, ...]]
Found = Mapping[str, Any]  # {group: permutation}
Prepared = Callable[[], Found]
Peer = Callable[[Axes, Mapping[str, Any], Mapping[str, Any], int], Prepared]


def load_peers(port: Path | None, jax: Path | None) -> dict[str, Peer]:
    """The codes that were asked for and that can run here; says on stderr which cannot, and why."""
    peers: dict[str, Peer] = {}
    for name, path, load in (("port", port, _load_port), ("jax", jax, _load_jax)):
        if path is None:
            continue
        try:
            peers[name] = load(path)
        except (ImportError, OSError) as error:
            print(f"skipped: {name} at {path} cannot run here ({error})", file=sys.stderr)
    return peers


def _load_port(path: Path) -> Peer:
    file = path / "utils" / "weight_matching.py"
    spec = importlib.util.spec_from_file_location("port_weight_matching", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    port = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(port)

    def prepare(axes: Axes, a: Mapping[str, Any], b: Mapping[str, Any], seed: int) -> Prepared:
        import torch

        theirs = port.permutation_spec_from_axes_to_perm(dict(axes))
        ours, others = ({key: params[key] for key in axes} for params in (a, b))

        def run() -> Found:
            torch.manual_seed(seed)
            with contextlib.redirect_stdout(io.StringIO()):  # it prints every step
                found = port.weight_matching(theirs, ours, others)
            return {group: permutation.long() for group, permutation in found.items()}

        return run

    return prepare


def _load_jax(path: Path) -> Peer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports are deprecated ones
        sys.path.insert(0, str(path / "src"))
        try:
            theirs = importlib.import_module("weight_matching")
        finally:
            sys.path.pop(0)
    import jax
    import jax.numpy as jnp

    def prepare(axes: Axes, a: Mapping[str, Any], b: Mapping[str, Any], seed: int) -> Prepared:
        import numpy as np
        import torch

        spec = theirs.permutation_spec_from_axes_to_perm(dict(axes))
        ours, others = ({key: jnp.asarray(params[key].numpy()) for key in axes} for params in (a, b))
        jax.block_until_ready((ours, others))

        def run() -> Found:
            found = theirs.weight_matching(jax.random.PRNGKey(seed), spec, ours, others, silent=True)
            return {group: torch.from_numpy(np.array(permutation)).long() for group, permutation in found.items()}

        return run

    return prepare
