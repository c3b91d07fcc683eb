"""Trained transformers on one line: no matching, only the units of the MLPs, all groups.

    python benchmarks/bench_transformers.py --text tinyshakespeare.txt --images fashion_mnist.npz --out bench

Trains two character-level GPTs (4 layers, 256 wide) from different seeds on the first nine tenths of a text file, and
two ViTs on images (``x_train, y_train, x_test, y_test``); networks that are already in ``--cache`` are read from there.
Writes ``bench.json`` and ``bench.md``: loss on the straight line between the two, perplexity or accuracy at the ends
and at the midpoint, on data that were not trained on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformer_networks import CharGpt, SmallViT, TransformerRecipe, train

import lmcfast
from lmcfast import analysis
from lmcfast.study.data import Batches, load_npz

GPT = TransformerRecipe(steps=800, batch_size=32)
VIT = TransformerRecipe(steps=1400, batch_size=128)
CONTEXT = 128
LAMBDAS = 11


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    rows = []
    if options.text:
        rows += _gpt(options)
    if options.images:
        rows += _vit(options)
    document = {"threads": options.threads, "torch": torch.__version__, "rows": rows}
    options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(_markdown(rows))
    print(_markdown(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a text file to train the GPTs on")
    parser.add_argument("--images", type=Path, help="an .npz file with images of 28 x 28 to train the ViTs on")
    parser.add_argument("--cache", type=Path, default=Path("trained"), help="folder of the trained networks")
    parser.add_argument("--out", type=Path, default=Path("transformers"), help="name of the results, without ending")
    parser.add_argument("--seeds", type=int, nargs=2, default=(1, 2), help="the seeds of the two networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train-only", action="store_true", help="train the networks and stop")
    options = parser.parse_args()
    if not (options.text or options.images):
        parser.error("give --text, --images or both")
    return options


def _gpt(options: argparse.Namespace) -> list[dict[str, Any]]:
    text = options.text.read_text(encoding="utf-8")
    alphabet = {character: k for k, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([alphabet[character] for character in text])
    cut = len(codes) * 9 // 10
    seen, held_out = codes[:cut], codes[cut:]

    def build() -> nn.Module:
        return CharGpt(len(alphabet), CONTEXT)

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        window = torch.arange(CONTEXT)
        while True:
            begin = torch.randint(len(seen) - CONTEXT - 1, (GPT.batch_size, 1), generator=generator)
            yield seen[begin + window], seen[begin + window + 1]

    pair = [train(build, batches, GPT, seed, options.cache / f"gpt-{seed}.safetensors") for seed in options.seeds]
    if options.train_only:
        return []
    windows = torch.arange(256)[:, None] * ((len(held_out) - CONTEXT - 1) // 256) + torch.arange(CONTEXT)
    test = Batches(held_out[windows], held_out[windows + 1], 64)
    return _compare("gpt", build(), test.inputs[:2], pair, test, math.exp, "perplexity")


def _vit(options: argparse.Namespace) -> list[dict[str, Any]]:
    data = load_npz(options.images)

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            order = torch.randperm(len(data.train_inputs), generator=generator)
            for chosen in order.split(VIT.batch_size)[: len(order) // VIT.batch_size]:
                yield data.train_inputs[chosen], data.train_targets[chosen]

    pair = [train(SmallViT, batches, VIT, seed, options.cache / f"vit-{seed}.safetensors") for seed in options.seeds]
    if options.train_only:
        return []
    test = Batches(data.test_inputs[:4000], data.test_targets[:4000], 500)
    return _compare("vit", SmallViT(), test.inputs[:2], pair, test, None, "accuracy")


def _compare(
    name: str,
    module: nn.Module,
    example: Tensor,
    pair: list[dict[str, Tensor]],
    test: Batches,
    of_loss: Any,
    metric: str,
) -> list[dict[str, Any]]:
    """One row for each way of matching."""
    spec = lmcfast.derive_spec(module, (example,))
    a, b = pair
    settings: dict[str, Any] = {"none": None}
    mlp = [group for group in spec.movable_groups if any(".up." in tensor for tensor in spec.tensors_of(group))]
    rows = []
    for way in ("none", "mlp units", "all groups"):
        began = time.perf_counter()
        if way != "none":
            result = lmcfast.weight_matching(spec, a, b, **({"only": mlp} if way == "mlp units" else {}))
            settings[way] = result.permutations
        seconds = time.perf_counter() - began
        moved = b if way == "none" else lmcfast.apply_permutations(spec, settings[way], b)
        line = analysis.barrier(module, a, moved, test, _loss, lambdas=LAMBDAS, metrics={"accuracy": _accuracy})
        ends = [line.at(0.0), line.at(1.0)]
        middle = line.at(0.5)
        shown = [of_loss(point["loss"]) if of_loss else point["accuracy"] for point in (*ends, middle)]
        rows.append(
            {
                "network": name, "matching": way, "seconds": seconds, "metric": metric,
                "a": shown[0], "b": shown[1], "midpoint": shown[2], "barrier": line.value,
                "losses": line.losses.tolist(), "distance": float(lmcfast.distance(spec, a, moved)),
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs.flatten(0, -2), targets.flatten())


def _accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(-1) == targets).double().mean())


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | matching | seconds | metric | A | B | midpoint | barrier (loss) | distance of A and B |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['network']} | {row['matching']} | {row['seconds']:.2f} | {row['metric']} | {row['a']:.3f} | "
            f"{row['b']:.3f} | {row['midpoint']:.3f} | {row['barrier']:.3f} | {row['distance']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
