"""Small problems through every kernel, each result checked: the program that compute-sanitizer watches."""

from __future__ import annotations

import argparse

import torch
from gpu_clock import Site

import lmcfast
from lmcfast.assignment import device as assignment_device
from lmcfast.terms import Inner, ScoreSum, Term, View, accumulate_all, inner_products, magnitudes

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def families(n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Easy scores, scores with ties, and scores that go through every stage."""
    a, b = torch.randn(2, n, n, generator=generator)
    return {
        "planted": a @ a[torch.randperm(n, generator=generator)].T,
        "independent": a @ b.T,
        "integers": torch.randint(0, 4, (n, n), generator=generator).float(),
        "constant": torch.ones(n, n),
        "rank one": torch.outer(a[0], b[0]),
        "rectangular": a[: n // 2],
    }


def check(solved: lmcfast.Assignment, scores: torch.Tensor) -> None:
    expected = lmcfast.solve_assignment(scores.double().cpu().numpy())
    objective = torch.as_tensor(solved.objective, dtype=torch.float64).cpu()
    bound = 2.0**-44 * max(float(scores.abs().max()), 1.0) * scores.shape[-1]
    torch.testing.assert_close(objective, torch.as_tensor(expected.objective, dtype=torch.float64), rtol=0, atol=bound)


def assignments(site: Site, n: int) -> int:
    generator = torch.Generator().manual_seed(23)
    solves = 0
    for most_batched in (1024, 0):  # a block for each problem, and the whole device for one
        assignment_device.MOST_BATCHED = most_batched
        for name, scores in families(n, generator).items():
            for dtype in DTYPES if name == "independent" else DTYPES[:1]:
                given = scores.to(site.device, dtype)
                check(lmcfast.solve_assignment(given), given)
                solves += 1
    assignment_device.MOST_BATCHED = 1024
    problems = [torch.randn(k, k + 3, generator=generator).to(site.device) for k in (1, 9, n // 2)]
    found = assignment_device.solve_ragged(problems)
    reports = found[0].reports.read()
    for one, given in zip(found, problems, strict=True):
        check(one.judge(reports), given)
    return solves + len(found)


def sums(site: Site, n: int) -> int:
    """What is expected is formed on the CPU, so that no kernel of a library runs under the tool."""
    generator = torch.Generator().manual_seed(29)
    a, b = torch.randn(2, n, 37, generator=generator)
    order = torch.randperm(37, generator=generator)
    index, made = order.to(site.device), 0
    for dtype in DTYPES:
        stored = a.to(dtype), b.to(dtype)
        x, y = (tensor.to(site.device) for tensor in stored)
        wide, gathered = stored[0].double(), stored[1].double()[:, order]
        (scores,) = accumulate_all([ScoreSum([Term(x, y, 1.0, None, index)], n)])
        torch.testing.assert_close(scores.double().cpu(), wide @ gathered.T, rtol=0, atol=2.0**-18 * 37)
        (value,) = inner_products([Inner(View(x), View(y, (None, index)))])
        torch.testing.assert_close(value.cpu(), (wide * gathered).sum(), rtol=1e-12, atol=1e-9)
        (largest,), (place,) = magnitudes([x])
        assert (float(largest), int(place)) == (float(wide.abs().max()), -1)
        made += 3
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Small problems through every kernel.")
    parser.add_argument("--emulated", action="store_true")
    parser.add_argument("--size", type=int, default=48)
    options = parser.parse_args()
    site = Site(options.emulated, quick=True)
    with site.kernels():
        print(f"{assignments(site, options.size)} assignments and {sums(site, options.size)} sums are right")


if __name__ == "__main__":
    main()
