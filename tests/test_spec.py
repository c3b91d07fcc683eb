"""PermutationSpec as data: made, checked, bound, written and read."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from helpers import networks

from lmcfast.errors import CheckpointError, InvalidParamsError, SpecError
from lmcfast.spec import Atom, Fixed, Group, PermutationSpec, spec_from_params
from lmcfast.spec.report import percent

AXES = {
    "0.weight": ("h0", None),
    "0.bias": ("h0",),
    "1.running_mean": ("h0",),
    "2.weight": (None, "h0 _49"),
}


def tensors(width: int = 4) -> dict[str, torch.Tensor]:
    return {
        "0.weight": torch.zeros(width, 3),
        "0.bias": torch.zeros(width),
        "1.running_mean": torch.zeros(width),
        "1.num_batches_tracked": torch.tensor(3),
        "2.weight": torch.zeros(5, 49 * width),
    }


def nested() -> PermutationSpec:
    """Heads with their own inner order, fused q and v, and experts on another axis."""
    groups = [Group("q", within=("h",)), Group("v", within=("h",)), Group("u", within=("e",)), Group("e", fixed=True)]
    axes = {"qv": ("h q | h v", "s"), "out": ("s", "h v"), "k": ("h q", "s"), "up": ("e", "u", "s")}
    return PermutationSpec.from_axes(axes, {"h": 2, "q": 3, "v": 4, "e": 2, "u": 5, "s": 3}, groups)


def test_from_axes() -> None:
    spec = PermutationSpec.from_axes(AXES)
    assert spec.groups == {"h0": Group("h0")}
    assert spec.axes["0.weight"] == (Atom("h0"), Fixed(None))
    assert spec.buffers == {"1.running_mean"}
    assert spec.groups_of("2.weight") == ("h0",)
    assert spec.tensors_of("h0") == ("0.weight", "0.bias", "1.running_mean", "2.weight")
    assert not spec.is_bound


def test_movable_groups_are_in_order_of_use() -> None:
    assert nested().movable_groups == ("h", "q", "v", "s", "u")


@pytest.mark.parametrize(
    ("axes", "options", "message", "tensor"),
    [
        ({"w": ("a", "b ( c")}, {}, r"tensor 'w', axis 1: layout 'b \( c'", "w"),
        ({"w": "ab"}, {}, "one for each axis, not 'ab'", "w"),
        ({"w": ("a", 3)}, {}, "tensor 'w', axis 1", "w"),
        ({"w": ("a",)}, {"sizes": {"b": 3}}, "'b' is not in any layout", None),
        ({"w": ("a",)}, {"sizes": {"a": -1}}, "size -1", None),
        ({"w": ("a",)}, {"groups": [Group("b")]}, "'b' is not in any tensor", None),
        ({"w": ("a",)}, {"groups": [Group("a", within=("b",))]}, "'b', which is not a group", None),
        ({"w": ("a",)}, {"groups": [Group("a", within=("a",))]}, "nested in itself", None),
        ({"w": ("a",)}, {"groups": {"b": Group("a")}}, None, None),
        ({"w": ("a",)}, {"tied": {"x": "y"}}, "'x' is an alias of 'y'", "x"),
        ({"w": ("a",), "x": (None,)}, {"tied": {"x": "w"}}, "different layouts", "x"),
        ({"w": ("a",)}, {"buffers": ["x"]}, "buffers: 'x'", "x"),
        ({"w": ("a",)}, {"why_fixed": {("w", 1): ("input",)}}, "no axis 1", "w"),
    ],
)
def test_from_axes_errors(axes: dict, options: dict, message: str | None, tensor: str | None) -> None:  # type: ignore[type-arg]
    if message is None:  # the key of a given group does not matter, its name does
        assert PermutationSpec.from_axes(axes, **options).groups == {"a": Group("a")}
        return
    with pytest.raises(SpecError, match=message) as caught:
        PermutationSpec.from_axes(axes, **options)
    assert caught.value.tensor == tensor


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"w": ("q", "h"), "b": ("q",)}, "tensor 'b': group 'q' on axis 0 is nested in 'h', which is not beside it"),
        ({"w": ("h q", "h h q")}, "several indices"),
        ({"w": ("q", "h", "h")}, "several indices"),
        ({"w": ("q", "h | _2")}, "one only in places"),
        ({"w": ("h | q",)}, "not beside it"),
    ],
)
def test_wrong_nesting_is_refused(axes: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        PermutationSpec.from_axes(axes, groups=[Group("q", within=("h",))])
    assert caught.value.group == "q"


@pytest.mark.parametrize("layouts", [("h q",), ("q", "h"), ("h q | h q",), ("q _2", "h | h"), ("h (q | _3 q)",)])
def test_right_nesting_is_accepted(layouts: tuple[str, ...]) -> None:
    spec = PermutationSpec.from_axes({"w": layouts}, groups=[Group("q", within=("h",))])
    assert spec.groups_of("w")


def test_nesting_must_name_the_outer_groups_of_outer_groups() -> None:
    groups = [Group("b", within=("a",)), Group("c", within=("b",))]
    with pytest.raises(SpecError, match="must then name the groups that 'b' is nested in: 'a'"):
        PermutationSpec.from_axes({"w": ("a b c",)}, groups=groups)


def test_bind_reads_sizes_from_any_axis() -> None:
    bound = PermutationSpec.from_axes(AXES).bind(tensors())
    assert bound.is_bound
    assert bound.groups["h0"].size == 4
    assert bound.axes["2.weight"][0] == Fixed(5)
    assert bound.bind(tensors()) == bound
    alone = PermutationSpec.from_axes({"w": ("h h2 _3 | h h2",), "v": ("h2",)})
    assert alone.bind({"w": torch.zeros(40), "v": torch.zeros(5)}).sizes == {"h": 2, "h2": 5}


def test_bind_errors_name_tensor_axis_and_sizes() -> None:
    spec = PermutationSpec.from_axes(AXES)
    with pytest.raises(InvalidParamsError, match=r"'0.bias' is missing \(and 1 more\)") as missing:
        spec.bind({name: t for name, t in tensors().items() if name not in ("0.bias", "2.weight")})
    assert missing.value.tensor == "0.bias"
    with pytest.raises(
        SpecError, match=r"'0.bias': axis 0 has length 6, not 4, .*'h0' has size 4 from axis 0 of '0.we"
    ):
        spec.bind({**tensors(), "0.bias": torch.zeros(6)})
    with pytest.raises(SpecError, match=r"'2.weight': axis 1 has length 195, not 196, with layout 'h0 _49'"):
        spec.bind({**tensors(), "2.weight": torch.zeros(5, 195)})
    with pytest.raises(InvalidParamsError, match=r"shape \(4, 3, 1\), but the spec gives it 2 axes"):
        spec.bind({**tensors(), "0.weight": torch.zeros(4, 3, 1)})
    with pytest.raises(SpecError, match="do not tell the size of group 'a'"):
        PermutationSpec.from_axes({"w": ("a b",)}).bind({"w": torch.zeros(6)})
    with pytest.raises(InvalidParamsError, match=r"axis 0 has length 5, not 4, .*size 4 in the spec") as other:
        spec.bind(tensors()).bind(tensors(5))
    assert other.value.tensor == "0.weight"


def test_bind_checks_tied_shapes_and_allows_missing_aliases() -> None:
    spec = PermutationSpec.from_axes({"w": ("h", None)}, tied={"alias": "w"})
    assert spec.bind({"w": torch.zeros(3, 2)}).axes["alias"] == (Atom("h"), Fixed(2))
    with pytest.raises(InvalidParamsError, match="'alias' has shape"):
        spec.bind({"w": torch.zeros(3, 2), "alias": torch.zeros(3, 4)})


def test_unbound_spec_says_so() -> None:
    with pytest.raises(SpecError, match=r"call spec.bind\(params\)"):
        PermutationSpec.from_axes(AXES).identity()
    with pytest.raises(SpecError, match="no group 'x'"):
        PermutationSpec.from_axes(AXES).tensors_of("x")
    with pytest.raises(SpecError, match="no tensor 'x'"):
        PermutationSpec.from_axes(AXES).groups_of("x")


def test_settings_have_the_nested_shapes() -> None:
    spec = nested()
    first, again, other = spec.random_permutations(3), spec.random_permutations(3), spec.random_permutations(4)
    assert {name: tuple(index.shape) for name, index in first.items()} == {
        "q": (2, 3),
        "v": (2, 4),
        "u": (2, 5),
        "e": (2,),
        "h": (2,),
        "s": (3,),
    }
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(first["e"], torch.arange(2)), "a fixed group never moves"
    for name, index in first.items():
        assert torch.equal(index.sort(-1).values, spec.identity()[name])


def test_random_settings_leave_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    nested().random_permutations(0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("spec", [PermutationSpec.from_axes(AXES), nested()], ids=["open", "nested"])
def test_json_round_trip(spec: PermutationSpec, tmp_path: Path) -> None:
    read = PermutationSpec.from_json(spec.to_json())
    assert read == spec
    assert read.to_json() == spec.to_json()
    assert read.fingerprint == spec.fingerprint
    path = tmp_path / "spec.json"
    spec.save(path)
    assert PermutationSpec.load(path) == spec
    assert [entry.name for entry in tmp_path.iterdir()] == ["spec.json"]
    document = json.loads(path.read_text())
    assert (document["format"], document["version"]) == ("lmcfast-spec", 1)


def test_json_keeps_tied_buffers_and_reasons() -> None:
    module, arguments = networks.tied_autoencoder()
    spec = PermutationSpec.from_axes(**arguments).bind(networks.params_of(module))
    read = PermutationSpec.from_json(spec.to_json())
    assert (read, read.tied) == (spec, arguments["tied"])
    table = spec_from_params(networks.params_of(networks.vgg()))
    read = PermutationSpec.from_json(table.to_json())
    assert (read.buffers, read.why_fixed) == (table.buffers, table.why_fixed)
    assert len(read.buffers) == 8


def test_json_is_one_line_for_each_tensor() -> None:
    lines = nested().to_json().splitlines()
    assert '    "qv": ["h q | h v", "s"],' in lines
    assert '    "q": {"size": 3, "within": ["h"]},' in lines


def test_fingerprint_depends_on_content_only() -> None:
    spec = PermutationSpec.from_axes(AXES)
    backwards = PermutationSpec.from_axes(dict(reversed(AXES.items())), why_fixed={("0.weight", 1): ("input",)})
    assert spec.fingerprint == backwards.fingerprint
    assert spec == backwards
    assert spec.fingerprint != spec.bind(tensors()).fingerprint
    assert spec.fingerprint != PermutationSpec.from_axes(AXES, buffers=[]).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, '"format" is not "lmcfast-spec" but \'other\''),
        ({"version": 2}, "version 2 is not 1"),
        ({"version": True}, "version True"),
        ({"gruops": {}}, "unknown field 'gruops'"),
        ({"groups": {"h": {"size": 3, "whithin": []}}}, "group 'h' has an unknown field 'whithin'"),
        ({"groups": {"h": {"size": "3"}}}, "group 'h': size is '3'"),
        ({"groups": []}, "groups is not an object"),
        ({"groups": {"h": {"fixed": 1}}}, "fixed is 1"),
        ({"axes": {"w": "h"}}, r"axes\['w'\] is not a list of layouts"),
        ({"axes": {"w": ["h", 3]}}, "a layout of 'w' is not a string but 3"),
        ({"axes": {"w": ["h", "(a"]}}, "tensor 'w', axis 1: layout"),
        ({"axes": {"w": ["h", "x"]}}, "uses group 'x', which is not a group"),
        ({"tied": {"x": 1}}, r"tied\['x'\]"),
        ({"buffers": "w"}, "buffers is not a list"),
        ({"why_fixed": {"w": {"a": []}}}, "'a' is not an axis number"),
    ],
)
def test_json_errors_are_one_line(change: dict, message: str) -> None:  # type: ignore[type-arg]
    good = {"format": "lmcfast-spec", "version": 1, "groups": {"h": {}}, "axes": {"w": ["h", None]}}
    assert PermutationSpec.from_json(json.dumps(good)).groups == {"h": Group("h")}
    with pytest.raises(SpecError, match=message) as caught:
        PermutationSpec.from_json(json.dumps({**good, **change}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[]", "format"),
        ('{"a": 1, "a": 2}', "two entries 'a'"),
        ("[" * 200000, "deep"),
    ],
)
def test_not_a_spec(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        PermutationSpec.from_json(text)


def test_load_and_save_errors_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.json: cannot read: no such file"):
        PermutationSpec.load(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(CheckpointError, match=r'broken\.json: not a spec: "format"'):
        PermutationSpec.load(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"broken\.json: is not a spec file"):
        PermutationSpec.load(broken)
    with pytest.raises(CheckpointError, match="missing"):
        PermutationSpec.from_axes(AXES).save(tmp_path / "missing" / "spec.json")


def test_copies_and_pickles() -> None:
    spec = nested()
    assert copy.deepcopy(spec) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_report_counts_and_fits_in_100_columns() -> None:
    params = networks.params_of(networks.cifar_resnet("pad"))
    report = spec_from_params(params).report()
    floating = [t for name, t in params.items() if t.is_floating_point() and "running" not in name]
    assert report.parameters == sum(t.numel() for t in floating)
    assert report.moving == report.parameters - params["linear.bias"].numel()
    assert report.share == report.moving / report.parameters
    text = report.text(full=True)
    assert max(map(len, text.splitlines())) <= 100
    for part in ("layer2.0.low | stream0 | layer2.0.high", "position in the kernel:", "input: conv1.weight[1]"):
        assert part in text
    assert "running_mean" in text


def test_report_of_nested_tied_and_open_specs() -> None:
    text = nested().report().text(full=True)
    assert "within h:" in text
    assert "(fixed)" in text
    assert "sizes not known" in str(PermutationSpec.from_axes(AXES).report())
    module, arguments = networks.tied_autoencoder()
    report = PermutationSpec.from_axes(**arguments).bind(networks.params_of(module)).report()
    assert "again.weight = encoder.weight" in str(report)
    assert report.parameters == sum(parameter.numel() for parameter in module.parameters())
    long_name = "a" * 150
    report = PermutationSpec.from_axes({f"{long_name}.weight": (f"{long_name}:0", None)}).report()
    text = report.text(full=True)
    assert long_name in text.replace("\n", "").replace(" ", "")
    assert max(map(len, text.splitlines())) <= 100
    assert "…" in str(report)
    assert max(map(len, str(report).splitlines())) <= 100


@pytest.mark.parametrize("width", [1, 40, 60, 100, 150])
def test_short_report_fits_the_width_and_does_not_grow_with_depth(width: int) -> None:
    for module in (networks.resnet((16, 32), blocks=9), networks.cifar_resnet("pad", blocks=3), networks.vgg()):
        spec = spec_from_params(networks.params_of(module))
        lines = spec.report().text(width=width).splitlines()
        assert max(map(len, lines)) <= max(width, 40)
        assert len(lines) < len(spec.groups) + 20
        assert all(any(line.startswith(f"{name} ") for line in lines) for name in spec.groups)
        assert sum("running" in line for line in lines) == 1, "buffers in one line and not among the places"
        full = spec.report().text(full=True, width=width)
        assert max(map(len, full.splitlines())) <= max(width, 40)


def test_a_share_is_never_rounded_up_to_all() -> None:
    assert percent(1.0) == "100.0 %"
    assert percent(0.5) == "50.0 %"
    assert percent(0.9996) == "99.96 %"
    assert percent(0.9999999996) == "99.99999996 %"
    assert float(percent(math.nextafter(1, 0)).split()[0]) <= 100
    big = {"0.weight": torch.zeros(3000, 3), "0.bias": torch.zeros(3000), "1.weight": torch.zeros(1, 3000)}
    report = spec_from_params({**big, "1.bias": torch.zeros(1)}).report()
    assert report.moving == report.parameters - 1
    assert "99.99" in str(report).splitlines()[0]
    assert "100" not in str(report).splitlines()[0].partition("%")[0]
