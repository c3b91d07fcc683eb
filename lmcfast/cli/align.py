"""``lmcfast align``: write B with its units lined up with A's, ready for any merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, folders
from .folders import KEPT, folder_options, folder_progress, print_merged


def align(
    a: common.ModelA,
    b: common.ModelB,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="B2", help="Folder to write.")],
    spec: Annotated[
        str, typer.Option("--spec", metavar="auto|FILE|FOLDER", help="auto: by the configuration of A, else by names.")
    ] = "auto",
    residual: folders.Residual = "keep",
    groups: folders.Groups = "ffn,heads,kv,experts",
    max_sweeps: common.MaxSweeps = 20,
    fix: common.Fix = None,
    only: common.Only = None,
    max_memory: folders.MaxMemory = None,
    no_prove: folders.NoProve = False,
    no_resume: folders.NoResume = False,
    log: folders.Log = None,
    as_json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Line B up with A and write it, as a folder that computes the same as B, for mergekit or any other merge.

    A and B are folders of safetensors as Hugging Face stores them. B2 has the shards, configuration and tokenizer of B.
    A run that was cut off goes on where it stopped when the same command is given again.

    Example:
      lmcfast align a/ b/ -o b-aligned/
    """
    with common.reporting(debug):
        options = folder_options(spec, residual, groups, fix, only, max_sweeps, None, max_memory, no_prove, no_resume)
        from ..merging import align_checkpoint

        with common.keeping(KEPT), folder_progress(as_json, log) as callback:
            done = align_checkpoint(a, b, out, options=options, callback=callback)
        print_merged(done, as_json)
