"""The pictures of docs/analysis.md, from the networks of a demo.

lmcfast demo -o lmcfast-demo
python benchmarks/analysis_pictures.py lmcfast-demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lmcfast
from lmcfast.analysis import diagnose, layer_difference, plot_alignment, plot_layer_difference
from lmcfast.study import Mlp, load_digits

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WITHOUT, WITH = "without permutation", "with permutation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `lmcfast demo` wrote")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures")
    options = parser.parse_args()
    a, b = (lmcfast.load_checkpoint(options.folder / f"{name}.safetensors") for name in "ab")
    match = lmcfast.load_permutations(options.folder / "permutations.safetensors")
    weights = diagnose(match.spec, a, b, match.permutations).weights
    plot_alignment(
        {
            f"γ = {gamma:g}": {
                WITHOUT: weights.without[gamma],
                WITH: weights.aligned[gamma],
                "by chance": weights.chance.alignment[gamma],
                "merge and A": weights.merged[gamma][0].with_a,
            }
            for gamma in weights.without
        },
        options.out / "analysis-alignment.png",
    )
    data = load_digits()
    widths = [len(tensor) for name, tensor in a.items() if name.endswith(".bias")]
    module = Mlp(data.input_size, widths[:-1], widths[-1])
    batches = data.test_batches(100)
    plot_layer_difference(
        {
            WITHOUT: layer_difference(match.spec, module, a, b, batches),
            WITH: layer_difference(match.spec, module, a, b, batches, match.permutations),
        },
        options.out / "analysis-layers.png",
    )


if __name__ == "__main__":
    main()
