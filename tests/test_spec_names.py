"""Keys of checkpoints and names of modules: there and back, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from lmcfast.errors import InvalidParamsError
from lmcfast.spec import Group, PermutationSpec
from lmcfast.spec.names import match_names

Tensors = dict[str, torch.Tensor]


def numbered(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def there_and_back(spec: PermutationSpec, file: Tensors) -> Tensors:
    names = match_names(spec, file)
    params = names.to_module(file)
    spec.bind(params)
    back = names.to_checkpoint(params, file)
    assert list(back) == list(file)
    assert all(torch.equal(back[key], file[key]) for key in file)
    return params


PLAIN = PermutationSpec.from_axes(
    {"model.a.weight": ("h", None), "model.b.weight": (None, "h")}, tied={"head.weight": "model.b.weight"}
)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("present", [("model.b.weight",), ("head.weight",), ("model.b.weight", "head.weight")])
def test_prefixes_and_ties(prefix: str, present: tuple[str, ...]) -> None:
    shapes = {"model.a.weight": (3, 2), **dict.fromkeys(present, (5, 3)), "model.rotary.inv_freq": (2,)}
    file = {prefix + key: tensor for key, tensor in numbered(shapes).items()}
    if len(present) == 2:
        file[prefix + "head.weight"] = file[prefix + "model.b.weight"]
    params = there_and_back(PLAIN, file)
    assert params["head.weight"] is params["model.b.weight"] or len(present) == 2


def test_a_base_prefix_may_lack() -> None:
    spec = PermutationSpec.from_axes({"bert.a.weight": ("h", None), "bert.b.weight": (None, "h")})
    there_and_back(spec, numbered({"a.weight": (3, 2), "b.weight": (2, 3)}))


MIXTRAL = PermutationSpec.from_axes(
    {
        "layers.0.mlp.gate.weight": ("expert", "stream"),
        "layers.0.mlp.experts.gate_up_proj": ("expert", "unit | unit", "stream"),
        "layers.0.mlp.experts.down_proj": ("expert", "stream", "unit"),
    },
    groups=[Group("unit", within=("expert",))],
)


@pytest.mark.parametrize(
    ("gate", "prefix", "parts"),
    [
        ("block_sparse_moe.gate.weight", "block_sparse_moe", ("w1", "w2", "w3")),
        ("mlp.gate.weight", "mlp", ("gate_proj", "down_proj", "up_proj")),
    ],
)
def test_experts_one_by_one(gate: str, prefix: str, parts: tuple[str, str, str]) -> None:
    shapes: dict[str, tuple[int, ...]] = {f"layers.0.{gate}": (3, 4)}
    for expert in range(3):
        for part, shape in zip(parts, [(5, 4), (4, 5), (5, 4)], strict=True):
            shapes[f"layers.0.{prefix}.experts.{expert}.{part}.weight"] = shape
    file = numbered(shapes)
    params = there_and_back(MIXTRAL, file)
    fused = params["layers.0.mlp.experts.gate_up_proj"]
    assert torch.equal(fused[1, 5:], file[f"layers.0.{prefix}.experts.1.{parts[2]}.weight"])


def test_a_fused_projection_from_its_parts() -> None:
    spec = PermutationSpec.from_axes({"a.qkv_proj.weight": ("h q | h k | h v", None)}, {"h": 2, "q": 2, "k": 1, "v": 3})
    there_and_back(spec, numbered({"a.q_proj.weight": (4, 3), "a.k_proj.weight": (2, 3), "a.v_proj.weight": (6, 3)}))


def test_a_fused_projection_of_the_file_that_the_module_has_apart() -> None:
    axes = {"a.q_proj.weight": ("h q", None), "a.k_proj.weight": ("h", None), "a.v_proj.weight": ("h v", None)}
    groups = [Group(name, within=("h",)) for name in "qv"]
    open_spec = PermutationSpec.from_axes(axes, groups=groups)
    shapes = {"a.q_proj.weight": (4, 3), "a.k_proj.weight": (2, 3), "a.v_proj.weight": (6, 3)}
    spec = open_spec.bind(numbered(shapes))
    file = numbered({"a.qkv_proj.weight": (12, 3)})
    params = there_and_back(spec, file)
    assert torch.equal(params["a.v_proj.weight"], file["a.qkv_proj.weight"][6:])
    with pytest.raises(InvalidParamsError, match=r"'a\.qkv_proj\.weight' of shape \(13, 3\)"):
        match_names(spec, file).to_module(numbered({"a.qkv_proj.weight": (13, 3)}))
    with pytest.raises(InvalidParamsError, match=r"no key for 'a\.q_proj\.weight'"):
        match_names(open_spec, file)


@pytest.mark.parametrize("stacks", [True, False])
def test_experts_in_one_tensor_of_the_file_that_the_module_has_apart(stacks: bool) -> None:
    rows = ["*"] if stacks else ["0", "1", "2"]
    axes: dict[str, tuple[str, ...]] = {"l.0.mlp.gate.weight": ("expert", "stream")}
    for row in rows:
        for part in ("gate_proj", "up_proj", "down_proj"):
            unit = "unit" if stacks else f"unit.{row}"
            layouts = ("stream", unit) if part == "down_proj" else (unit, "stream")
            axes[f"l.0.mlp.experts.{row}.{part}.weight"] = ("expert", *layouts) if stacks else layouts
    named = {"unit": 5} if stacks else {f"unit.{row}": 5 for row in rows}
    spec = PermutationSpec.from_axes(
        axes,
        {"expert": 3, "stream": 4, **named},
        groups=[Group("unit", within=("expert",))] if stacks else [],
        stacks={name: 3 for name in axes if "*" in name},
    )
    shapes = {"gate.weight": (3, 4), "experts.gate_up_proj": (3, 10, 4), "experts.down_proj": (3, 4, 5)}
    file = numbered({f"l.0.mlp.{key}": shape for key, shape in shapes.items()})
    params = there_and_back(spec, file)
    if not stacks:
        assert torch.equal(params["l.0.mlp.experts.1.up_proj.weight"], file["l.0.mlp.experts.gate_up_proj"][1, 5:])
        with pytest.raises(InvalidParamsError, match="3 experts"):
            match_names(spec, file).to_module({**file, "l.0.mlp.experts.down_proj": torch.zeros(4, 4, 5)})


def test_stacks_of_the_spec() -> None:
    spec = PermutationSpec.from_axes(
        {"m.*.w.weight": ("expert", "unit", None), "gate.weight": ("expert", None)},
        groups=[Group("unit", within=("expert",))],
        stacks={"m.*.w.weight": 3},
    )
    file = numbered({**{f"m.{k}.w.weight": (4, 2) for k in range(3)}, "gate.weight": (3, 2)})
    assert there_and_back(spec, file)["m.*.w.weight"].shape == (3, 4, 2)


def test_what_does_not_fit_is_listed() -> None:
    file = numbered({"model.a.weight": (3, 2), "extra.one": (1,), "extra.two": (1,)})
    with pytest.raises(InvalidParamsError) as caught:
        match_names(PLAIN, file)
    text = str(caught.value)
    assert all(name in text for name in ("'model.b.weight'", "'extra.one'", "'extra.two'"))
    assert "\n" not in text
    assert caught.value.tensor == "model.b.weight"
    with pytest.raises(InvalidParamsError, match="no tensor of the spec for the key 'extra'"):
        match_names(PLAIN, numbered({"model.a.weight": (3, 2), "model.b.weight": (5, 3), "extra": (1,)}))


def test_a_missing_expert_is_an_error() -> None:
    keys = ["layers.0.mlp.gate.weight"]
    keys += [f"layers.0.mlp.experts.{e}.{w}.weight" for e in (0, 2) for w in ("gate_proj", "up_proj", "down_proj")]
    with pytest.raises(InvalidParamsError, match=r"experts\.2\.gate_proj"):
        match_names(MIXTRAL, keys)
