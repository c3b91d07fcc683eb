"""The measurements of the GPU benchmark: each checks its result, then times it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from gpu_clock import Site, cpu_seconds

import lmcfast
from lmcfast.assignment import solve_assignment_deferred
from lmcfast.assignment.device import enqueue
from lmcfast.terms import GroupedProducts, ScoreSum, Term, full_precision

Row = dict[str, Any]

LARGEST_FOR_CPU = 16384  # the CPU solver is timed up to here, in a quick run up to the next
LARGEST_FOR_CPU_QUICK = 4096
MOST_OF_A_COPY = 200  # per cent of its bandwidth: more than memory has, so some other kernel read the scores
CERTIFICATE = r"\b(read_profits|certify)_kernel"  # the first reads the scores, the second adds up
LIST_PASS = r"\bscan_(held_)?kernel"
SCAN_BLOCKS = 8  # of the first pass, for each of the option `blocks`


def scores_of(kind: str, n: int, site: Site, seed: int = 13) -> torch.Tensor:
    """Scores of two unrelated networks of normal weights, or of one and itself with its units in another order."""
    generator = torch.Generator(site.device).manual_seed(seed)
    depth = min(n, 4096)
    a = torch.randn(n, depth, generator=generator, device=site.device)
    if kind == "planted":
        b = a[torch.randperm(n, generator=generator, device=site.device)]
    else:
        b = torch.randn(n, depth, generator=generator, device=site.device)
    with full_precision():
        return a @ b.T


def proven_gap(scores: torch.Tensor, solved: lmcfast.Assignment) -> float:
    """The certificate computed again, by torch, a share of the rows at a time; relative to what rounding allows."""
    n = scores.shape[-1]
    prices, columns = solved.prices.view(-1, n), solved.columns.view(-1, n)
    worst = 0.0
    for matrix, p, chosen in zip(scores.view(-1, n, n), prices, columns, strict=True):
        assert torch.equal(chosen.sort().values, torch.arange(n, device=chosen.device)), "not a permutation"
        pieces = [(piece.double() - p).amax(1).sum() for piece in matrix.split(1024)]
        assigned = matrix.gather(1, chosen[:, None]).double()
        gap = torch.stack(pieces).sum() + p.sum() - assigned.sum()
        unit = 16 * n * 2.0**-53 * max(float(assigned.abs().max()), float(p.abs().max()))
        worst = max(worst, abs(float(gap)) / unit)
    return worst


def assignment(kind: str, n: int, site: Site) -> Row:
    """One large problem."""
    scores = scores_of(kind, site.size(n, 40), site)
    return _solve(scores, site, cpu=n <= (LARGEST_FOR_CPU_QUICK if site.quick else LARGEST_FOR_CPU))


def batch(count: int, n: int, site: Site) -> Row:
    """Problems of one size, each the scores of unrelated networks."""
    count, n = site.size(count, 3), site.size(n, 12)
    generator = torch.Generator(site.device).manual_seed(17)
    a, b = torch.randn(2, count, n, n, generator=generator, device=site.device)
    with full_precision():
        return _solve(a @ b.transpose(1, 2), site, cpu=True)


def _solve(scores: torch.Tensor, site: Site, cpu: bool) -> Row:
    """``measured``: between events around the enqueued work; ``wall_ms``: of the call that returns the result."""
    solved = lmcfast.solve_assignment(scores)
    row: Row = {"gap_in_allowances": proven_gap(scores, solved), "stats": solved.stats._asdict()}
    assert row["gap_in_allowances"] <= 2, row
    row["measured"] = site.milliseconds(lambda: solve_assignment_deferred(scores))
    row["wall_ms"] = site.wall_milliseconds(lambda: lmcfast.solve_assignment(scores))
    if cpu:
        # A numpy view goes to the CPU solver whatever the tensors' kernels are.
        host = scores.cpu().numpy()
        expected = lmcfast.solve_assignment(host)
        ours, theirs = (torch.as_tensor(x.objective, dtype=torch.float64).cpu().sum() for x in (solved, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
        if not site.emulated:
            row["cpu_ms"] = 1e3 * cpu_seconds(lambda: lmcfast.solve_assignment(host), 1 if site.quick else 3)
    row["torch_linear_assignment_ms"] = _peer(scores, site)
    return row


def _peer(scores: torch.Tensor, site: Site) -> float | None:
    """torch-linear-assignment, where it is installed and the problem is not too large for it."""
    if site.emulated or scores.shape[-1] > 4096:
        return None
    try:
        from torch_linear_assignment import batch_linear_assignment
    except ImportError:
        return None
    costs = -scores.view(-1, *scores.shape[-2:])
    return site.milliseconds(lambda: batch_linear_assignment(costs), repeats=1)


def bandwidth(names: str, site: Site) -> Row:
    """How fast the kernels of these names together read the scores once, as a percentage of what a large copy moves."""
    n = site.size(16384 if site.quick else 28672, 40)
    scores = scores_of("planted", n, site)
    target = torch.empty_like(scores)
    copied = site.milliseconds(lambda: target.copy_(scores))
    kernels = site.kernel_microseconds(lambda: solve_assignment_deferred(scores), names)
    if copied is None or kernels is None:
        return {"measured": None}
    size = scores.numel() * scores.element_size()
    copy_rate, rate = 2 * size / copied / 1e6, size / kernels / 1e3
    row = {"measured": 100 * rate / copy_rate, "copy_gb_per_s": copy_rate, "gb_per_s": rate, "n": n}
    assert row["measured"] <= MOST_OF_A_COPY, f"these kernels cannot have read the scores: {row}"
    return row


def similarity(site: Site) -> Row:
    """Many small groups: one call against a loop."""
    groups, n, depth = site.size(64, 3), site.size(256, 20), site.size(1024, 48)
    generator = torch.Generator(site.device).manual_seed(19)
    a, b = torch.randn(2, groups, n, depth, generator=generator, device=site.device)
    with full_precision():
        grouped = GroupedProducts([ScoreSum([Term(x, y)], n) for x, y in zip(a, b, strict=True)])

        def loop() -> list[torch.Tensor]:
            return [torch.matmul(x, y.T) for x, y in zip(a, b, strict=True)]

        for found, x, y in zip(grouped.run(), a, b, strict=True):
            error = (found.double() - x.double() @ y.double().T).abs().max()
            assert float(error) <= 2.0**-20 * depth, float(error)
        together, one_by_one = site.milliseconds(grouped.run), site.milliseconds(loop)
    if together is None or one_by_one is None:
        return {"measured": None}
    return {"measured": one_by_one / together, "grouped_ms": together, "loop_ms": one_by_one}


def matching(name: str, site: Site) -> Row:
    """A whole match of two networks of random weights, the weights on the GPU, against the same call on the CPU."""
    import matching_networks

    params = matching_networks.random_pair(name) if not site.emulated else _tiny_pair()
    spec = lmcfast.spec_from_params(params[0])
    on_device = [{key: tensor.to(site.device) for key, tensor in side.items()} for side in params]

    def run() -> lmcfast.MatchResult:
        return lmcfast.weight_matching(spec, *on_device, device=site.device)

    found = run()
    assert found.counts is not None
    row: Row = {
        "objective": found.objective,
        "sweeps": found.sweeps,
        "phases_s": dict(found.seconds),
        "counts": asdict(found.counts),
    }
    wall = site.wall_milliseconds(run, repeats=2 if site.quick else 5)
    if wall is None:
        return {**row, "measured": None}
    expected = lmcfast.weight_matching(spec, *params)
    seconds = cpu_seconds(lambda: lmcfast.weight_matching(spec, *params), 1 if site.quick else 3)
    return {
        **row,
        "measured": 1e3 * seconds / wall,
        "gpu_ms": wall,
        "cpu_ms": 1e3 * seconds,
        "cpu_objective": expected.objective,
        "cpu_sweeps": expected.sweeps,
    }


def _tiny_pair() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    def params(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 12), torch.nn.ReLU()]
        return {k: t.detach() for k, t in torch.nn.Sequential(*layers, torch.nn.Linear(12, 4)).state_dict().items()}

    return params(1), params(2)


CASES: dict[str, Callable[[Site], Row]] = {
    "independent 4096": lambda site: assignment("independent", 4096, site),
    "independent 16384": lambda site: assignment("independent", 16384, site),
    "independent 28672": lambda site: assignment("independent", 28672, site),
    "planted 28672": lambda site: assignment("planted", 28672, site),
    "batch 208 x 300": lambda site: batch(208, 300, site),
    "batch 1000 x 100": lambda site: batch(1000, 100, site),
    "list pass": lambda site: bandwidth(LIST_PASS, site),
    "certificate": lambda site: bandwidth(CERTIFICATE, site),
    "similarity": similarity,
    "vgg16": lambda site: matching("vgg16", site),
    "mlp 3x2048": lambda site: matching("mlp 3x2048", site),
}


def assumptions(site: Site) -> dict[str, float | None]:
    """What the design reckoned with, in microseconds, from kernel times divided by the counts of the same run."""
    n = site.size(4096, 40)
    scores = scores_of("independent", n, site)
    stats = lmcfast.solve_assignment(scores).stats

    def share(names: str, count: float, **tuning: int) -> float | None:
        spent = site.kernel_microseconds(lambda: enqueue(scores, **tuning), names)
        return None if spent is None or not count else spent / count

    one_warp = {"blocks": 1, "threads": 32}
    lone = enqueue(scores, **one_warp)[0].result().stats
    easy = scores_of("planted", n, site)
    gap, launches = site.milliseconds(lambda: enqueue(easy)), enqueue(easy)[1]
    return {
        "launch gap": None if gap is None else 1e3 * gap / launches,
        "bid of one warp": share(r"\b(chains|exact_bids)_kernel", lone.bids, **one_warp),
        "scan of one row of 4096 by a block": share(LIST_PASS, n / SCAN_BLOCKS, blocks=1),
        "path step": share(r"\b(attempt|paths)_kernel", stats.path_steps),
    }
