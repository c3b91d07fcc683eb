"""Specs of networks with nested groups, by hand, with random tensors of their shapes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import torch

from lmcfast import Group, PermutationSpec
from lmcfast.matching.nested_problem import NestedProblem
from lmcfast.spec.layout import layout_size

from .matching import Params

Axes = dict[str, tuple[str | None, ...]]


def random_params(spec: PermutationSpec, seed: int, dtype: torch.dtype = torch.float32) -> Params:
    """Standard normal tensors of the shapes of a spec whose sizes are stated."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: [layout_size(x, spec.sizes) for x in layouts] for name, layouts in spec.axes.items()}
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def gpt2(layers: int = 2, hidden: int = 24, heads: int = 3, vocabulary: int = 30) -> PermutationSpec:
    """Heads with query-key dimensions and value dimensions in each: fused as query | key | value."""
    axes: Axes = {"wte": (f"_{vocabulary}", "stream"), "wpe": ("_16", "stream")}
    sizes = {"stream": hidden}
    groups = []
    for i in range(layers):
        h, qk, v, m = f"h.{i}", f"qk.{i}", f"v.{i}", f"mlp.{i}"
        fused = f"{h} {qk} | {h} {qk} | {h} {v}"
        axes |= {
            f"{i}.ln_1": ("stream",),
            f"{i}.attn.c_attn": ("stream", fused),
            f"{i}.attn.c_attn.bias": (fused,),
            f"{i}.attn.c_proj": (f"{h} {v}", "stream"),
            f"{i}.attn.c_proj.bias": ("stream",),
            f"{i}.ln_2": ("stream",),
            f"{i}.mlp.c_fc": ("stream", m),
            f"{i}.mlp.c_fc.bias": (m,),
            f"{i}.mlp.c_proj": (m, "stream"),
        }
        groups += [Group(qk, within=(h,)), Group(v, within=(h,))]
        sizes |= {h: heads, qk: hidden // heads, v: hidden // heads, m: 4 * hidden}
    axes["ln_f"] = ("stream",)
    return PermutationSpec.from_axes(axes, sizes, groups)


def llama(
    layers: int = 2,
    hidden: int = 24,
    kv_heads: int = 2,
    queries: int = 2,
    head: int = 6,
    rotary: bool = True,
    vocabulary: int = 30,
) -> PermutationSpec:
    """Grouped key and value heads: query heads in each, and value dimensions; rotary holds the query dimensions."""
    axes: Axes = {"embed": (f"_{vocabulary}", "stream")}
    sizes = {"stream": hidden}
    groups = []
    for i in range(layers):
        kv, q, v, m = f"kv.{i}", f"q.{i}", f"v.{i}", f"mlp.{i}"
        d = f"_{head}" if rotary else f"d.{i}"
        axes |= {
            f"{i}.norm_1": ("stream",),
            f"{i}.q_proj": (f"{kv} {q} {d}", "stream"),
            f"{i}.k_proj": (f"{kv} {d}", "stream"),
            f"{i}.v_proj": (f"{kv} {v}", "stream"),
            f"{i}.o_proj": ("stream", f"{kv} {q} {v}"),
            f"{i}.norm_2": ("stream",),
            f"{i}.gate_proj": (m, "stream"),
            f"{i}.up_proj": (m, "stream"),
            f"{i}.down_proj": ("stream", m),
        }
        groups += [Group(q, within=(kv,)), Group(v, within=(kv,))]
        sizes |= {kv: kv_heads, q: queries, v: head, m: 3 * hidden}
        if not rotary:
            groups.append(Group(d, within=(kv,)))
            sizes[d] = head
    axes |= {"norm": ("stream",), "lm_head": (f"_{vocabulary}", "stream")}
    return PermutationSpec.from_axes(axes, sizes, groups)


def mixtral(
    layers: int = 2, hidden: int = 24, experts: int = 3, units: int = 10, heads: int = 2, vocabulary: int = 30
) -> PermutationSpec:
    """Experts with units in each, gate and up fused; grouped heads as in :func:`llama`."""
    base = llama(layers, hidden, heads, 2, hidden // (2 * heads), vocabulary=vocabulary)
    mlp = [f"{i}.{name}" for i in range(layers) for name in ("gate_proj", "up_proj", "down_proj")]
    axes: dict[str, tuple[object, ...]] = {name: layouts for name, layouts in base.axes.items() if name not in mlp}
    groups = [group for group in base.groups.values() if not group.name.startswith("mlp")]
    for i in range(layers):
        e, u = f"expert.{i}", f"unit.{i}"
        axes |= {
            f"{i}.router": (e, "stream"),
            f"{i}.gate_up_proj": (e, f"{u} | {u}", "stream"),
            f"{i}.down_proj": (e, "stream", u),
        }
        groups += [Group(e, experts), Group(u, units, within=(e,))]
    return PermutationSpec.from_axes(axes, groups=groups)  # type: ignore[arg-type]


def vit(layers: int = 2, hidden: int = 24, heads: int = 3) -> PermutationSpec:
    """Query, key and value as separate tensors, patches in, classes out."""
    axes: Axes = {"patch": ("stream", None, None, None), "cls": ("_1", "_1", "stream"), "pos": ("_1", "_17", "stream")}
    sizes = {"stream": hidden}
    groups = []
    for i in range(layers):
        h, qk, v, m = f"h.{i}", f"qk.{i}", f"v.{i}", f"mlp.{i}"
        for name, inner in (("query", qk), ("key", qk), ("value", v)):
            axes |= {f"{i}.{name}.weight": (f"{h} {inner}", "stream"), f"{i}.{name}.bias": (f"{h} {inner}",)}
        axes |= {
            f"{i}.norm_1": ("stream",),
            f"{i}.output": ("stream", f"{h} {v}"),
            f"{i}.fc1": (m, "stream"),
            f"{i}.fc1.bias": (m,),
            f"{i}.fc2": ("stream", m),
        }
        groups += [Group(qk, within=(h,)), Group(v, within=(h,))]
        sizes |= {h: heads, qk: hidden // heads, v: hidden // heads, m: 4 * hidden}
    axes |= {"norm": ("stream",), "head": ("_10", "stream")}
    axes["patch"] = ("stream", "_3", "_4", "_4")
    return PermutationSpec.from_axes(axes, sizes, groups)


def resnext(blocks: int = 2, stream: int = 24, groups: int = 4, width: int = 3) -> PermutationSpec:
    """Grouped convolutions: in- and output channels in each of their groups."""
    axes: Axes = {"stem": ("stream", "_3", "_9")}
    sizes = {"stream": stream}
    nested = []
    for k in range(blocks):
        g, i, o = f"g.{k}", f"i.{k}", f"o.{k}"
        axes |= {
            f"{k}.conv1": (f"{g} {i}", "stream"),
            f"{k}.bn1": (f"{g} {i}",),
            f"{k}.conv2": (f"{g} {o}", i, "_9"),
            f"{k}.bn2": (f"{g} {o}",),
            f"{k}.conv3": ("stream", f"{g} {o}"),
        }
        nested += [Group(i, within=(g,)), Group(o, within=(g,))]
        sizes |= {g: groups, i: width, o: width}
    axes["fc"] = ("_10", "stream")
    return PermutationSpec.from_axes(axes, sizes, nested)


def settings_of(problem: NestedProblem, group: str) -> Iterator[dict[str, torch.Tensor]]:
    """Every relative setting of a group and its members, as a step of the group may make."""
    spec, members = problem.spec, problem.plans[group].members
    choices = []
    for name in members:
        *outer, size = spec.shape_of(name)
        rows = list(itertools.permutations(range(size)))
        choices.append(itertools.product(rows, repeat=int(torch.Size(outer).numel())))
    for chosen in itertools.product(*choices):
        yield {
            name: torch.tensor(rows).reshape(spec.shape_of(name)) for name, rows in zip(members, chosen, strict=True)
        }


def same_settings(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)
