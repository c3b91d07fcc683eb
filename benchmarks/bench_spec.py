"""Derivation of specs on a zoo of tiny networks: seconds, what moves, proof, control and probe.

    python benchmarks/bench_spec.py --out networks            # networks.json and networks.md
    python benchmarks/bench_spec.py --networks llama mixtral
    python benchmarks/bench_spec.py --join part1.json part2.json --out networks

The networks are those of ``tests/helpers/zoo``; the first is examined twice, since it imports and compiles. What is
derived is then proved on the network's random weights in float64. ``--join`` puts runs of parts of the zoo together.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the zoo is shared with the tests


def main() -> None:
    options = _options()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when torch is imported, which is below
    import torch
    from helpers import zoo

    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # the networks' own
    names = options.networks or [name for source in options.sources for name in zoo.names(source)]
    if options.join:
        parts = [json.loads(path.read_text(encoding="utf-8")) for path in options.join]
        rows = [row for part in parts for row in part["rows"]]
        document = {"machine": parts[-1]["machine"], "rows": rows}
    else:
        rows = []
        for name in [*names[:1], *names]:
            rows.append(examine(name))
            print(line(rows[-1]), flush=True)
        rows = rows[1:]
        document = {"machine": machine(options.threads), "rows": rows}
    print(summary(rows))
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(page(document), encoding="utf-8")
    if any("wrong" in row for row in rows):
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Derivation of specs on a zoo of tiny networks.")
    parser.add_argument("--networks", nargs="*", help="names of the zoo (default: all)")
    sources = ["torch", "torchvision", "timm", "transformers"]
    parser.add_argument("--sources", nargs="*", default=sources, choices=sources)
    parser.add_argument("--join", nargs="*", type=Path, help="JSON files of earlier runs, instead of running anything")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    return parser.parse_args()


def examine(name: str) -> dict[str, Any]:
    """One network's figures; ``wrong``: what went wrong, if anything did."""
    from helpers import zoo

    from lmcfast.errors import LmcfastError
    from lmcfast.spec import verify_spec
    from lmcfast.spec.derivation.assemble import fixed_classes
    from lmcfast.spec.derivation.derived import derived
    from lmcfast.spec.derivation.tracing import trace

    network = zoo.build(name)
    entry = zoo.ENTRIES[name]
    row: dict[str, Any] = {"network": name, "source": entry.source, "lost": entry.lost}
    try:
        begin = time.process_time()
        traced = trace(network.module, network.args, network.kwargs, network.outputs)
        middle = time.process_time()
        derivation, spec = derived(traced)
        row |= {"trace": middle - begin, "derive": time.process_time() - middle}
        row |= _sizes(spec, traced.program.graph)
        row["unsupported"] = dict(derivation.unsupported)
        probe = [candidate for _, candidate in fixed_classes(derivation)]
        begin = time.process_time()
        proof = verify_spec(spec, network.module, network.args, network.kwargs, network.outputs, probe=probe)
        row["verify"] = time.process_time() - begin
    except LmcfastError as error:
        return row | {"wrong": str(error)}
    return row | {
        "error": proof.max_error,
        "moved": len(proof.tensors),
        "insensitive": list(proof.insensitive),
        "probed": proof.probed,
        "missed": list(proof.missed),
    }


def _sizes(spec: Any, graph: Any) -> dict[str, Any]:
    report = spec.report()
    own = [layouts for name, layouts in spec.axes.items() if name not in spec.tied]
    movable = set(spec.movable_groups)
    return {
        "nodes": len(graph.nodes),
        "parameters": report.parameters,
        "groups": len(movable),
        "nested": sum(bool(spec.groups[name].within) for name in movable),
        "axes": sum(len(layouts) for layouts in own),
        "free": sum(not movable.isdisjoint(_names(layout)) for layouts in own for layout in layouts),
        "share": report.share,
        "bits": report.bits,
    }


def _names(layout: Any) -> Iterable[str]:
    from lmcfast.spec.layout import atoms

    return atoms(layout)


def machine(threads: int) -> dict[str, Any]:
    """Where and with what the figures were made."""
    from importlib import metadata

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    processors = Path("/proc/cpuinfo")
    models = processors.read_text().split("model name") if processors.exists() else []
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() or None,
        "processor": models[1].split("\n")[0].strip("\t :") if len(models) > 1 else platform.processor(),
        "threads": threads,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "transformers")},
    }


def line(row: dict[str, Any]) -> str:
    """One network in one line of plain text."""
    if "wrong" in row:
        return f"{row['network']:30} WRONG {row['wrong']}"
    text = (
        f"{row['network']:30} trace {row['trace']:5.2f} s derive {row['derive']:5.2f} s  groups {row['groups']:3} "
        f"({row['nested']})  free {row['free']}/{row['axes']}  share {row['share']:.3f}  error {row['error']:.0e}  "
        f"control {len(row['insensitive'])}/{row['moved']}  probe {len(row['missed'])}/{row['probed']}"
    )
    if row["missed"]:
        text += f"  missed {row['missed'][:3]}"
    return text + (f"  not understood {row['unsupported']}" if row["unsupported"] else "")


def summary(rows: list[dict[str, Any]]) -> str:
    right = [row for row in rows if "wrong" not in row]
    total = {key: sum(row[key] for row in right) for key in ("groups", "nested", "free", "axes", "moved", "probed")}
    worst = max((row["error"] for row in right), default=0.0)
    missed, insensitive = (sum(len(row[key]) for row in right) for key in ("missed", "insensitive"))
    return (
        f"{len(right)} of {len(rows)} networks proved, largest error {worst:.1e}: {total['groups']} groups "
        f"({total['nested']} nested), {total['free']} of {total['axes']} axes free; {insensitive} of {total['moved']} "
        f"moved tensors without effect alone; {missed} of {total['probed']} fixed classes could have moved"
    )


def page(document: dict[str, Any]) -> str:
    """The results as a page of Markdown."""
    where, rows = document["machine"], document["rows"]
    lines = [
        "# Networks whose spec is derived",
        "",
        "Tiny networks of every kind, from random configurations, none with a spec written by hand. Written by "
        "`benchmarks/bench_spec.py`; the networks are in `tests/helpers/zoo`.",
        "",
        f"{where['date']}, commit {where['commit']}, {where['processor']}, {where['threads']} thread, Python "
        f"{where['python']}, torch {where['torch']}, torchvision {where['torchvision']}, timm {where['timm']}, "
        f"transformers {where['transformers']}.",
        "",
        summary(rows) + ".",
        "",
        "- *trace*, *derive*: seconds of processor time, one thread. *groups*: permutations that may move (in "
        "brackets the nested ones: one for each head, expert, ...). *free*: axes with some freedom, of all axes. "
        "*share*: of the parameters, those in tensors that move.",
        "- *error*: largest relative change of the output under random settings of all groups, in float64. *control*: "
        "moved tensors that change nothing when moved alone (the proof says nothing about them: a key's bias, which "
        "softmax ignores). *probe*: classes of axes held fixed that change nothing when moved alone.",
    ]
    for source in dict.fromkeys(row["source"] for row in rows):
        lines += ["", f"## {source}", "", *_table([row for row in rows if row["source"] == source])]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| network | trace | derive | groups | free | share | error | control | probe | remarks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "wrong" in row:
            lines.append(f"| {row['network']} | | | | | | | | | **{row['wrong'].replace('|', '/')}** |")
            continue
        remarks = [f"not moved: {row['lost']}"] if row["lost"] else []
        remarks += [f"{name} not understood ({count})" for name, count in row["unsupported"].items()]
        remarks += [f"could move: {place.replace('|', '/')}" for place in row["missed"][:2]]
        lines.append(
            f"| {row['network']} | {row['trace']:.2f} | {row['derive']:.2f} | {row['groups']} ({row['nested']}) | "
            f"{row['free']}/{row['axes']} | {100 * row['share']:.0f} % | {row['error']:.0e} | "
            f"{len(row['insensitive'])}/{row['moved']} | {len(row['missed'])}/{row['probed']} | {'; '.join(remarks)} |"
        )
    return lines


if __name__ == "__main__":
    main()
