"""The folded text form: lines with variables, TOML and JSON, and equality up to names."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcfast.errors import CheckpointError, SpecError
from lmcfast.spec import Group, PermutationSpec, difference

LLAMA = """
format = "lmcfast-spec"
version = 1
folded = true

[groups]
"stream" = {size = 16}
"kv.{i}" = {size = 2}
"q.{i}" = {size = 3, within = ["kv.{i}"]}
"v.{i}" = {size = 4, within = ["kv.{i}"]}

[axes]
"embed.weight" = ["_100", "stream"]
"layers.{i}.q_proj.weight" = {index = ["0-2"], layout = ["kv.{i} q.{i} _4", "stream"]}
"layers.{i}.v_proj.weight" = {index = ["0-2"], layout = ["kv.{i} v.{i}", "stream"]}
"layers.{i}.o_proj.weight" = {index = ["0-2"], layout = ["stream", "kv.{i} q.{i} v.{i}"]}
"norm.weight" = {layout = ["stream"], why = {0 = ["no reason"]}}
"""


def round_trips(spec: PermutationSpec) -> None:
    for text, read in (
        (spec.to_toml(), PermutationSpec.from_toml),
        (spec.to_json(folded=True), PermutationSpec.from_json),
        (spec.to_json(), PermutationSpec.from_json),
    ):
        back = read(text)
        assert back == spec, text
        assert back.why_fixed == spec.why_fixed
        assert back.fingerprint == spec.fingerprint


def test_a_file_by_hand_is_read_in_the_order_of_the_layers() -> None:
    spec = PermutationSpec.from_toml(LLAMA)
    assert list(spec.axes)[:5] == [
        "embed.weight",
        *(f"layers.0.{name}_proj.weight" for name in "qvo"),
        "layers.1.q_proj.weight",
    ]
    assert spec.groups["q.1"] == Group("q.1", 3, ("kv.1",))
    assert len(spec.axes) == 11
    round_trips(spec)
    again = tomllib.loads(spec.to_toml())
    assert again["axes"] == tomllib.loads(LLAMA)["axes"]
    assert again["groups"] == tomllib.loads(LLAMA)["groups"]
    assert list(PermutationSpec.from_toml(spec.to_toml()).axes) == list(spec.axes)


def test_layers_that_differ_get_lines_of_their_own() -> None:
    axes: dict[str, tuple[str | None, ...]] = {f"h.{i}.w": (f"u.{i}", "stream") for i in range(6)}
    axes["h.2.w"] = ("u.2", "stream | _1")
    axes["h.4.w"] = ("u.4", None)
    axes["h.5.w"] = ("u.5", None)
    spec = PermutationSpec.from_axes(axes, {"u.0": 3})
    round_trips(spec)
    lines = json.loads(spec.to_json(folded=True))
    assert lines["axes"]["h.{i}.w"] == [
        {"index": ["0-1,3"], "layout": ["u.{i}", "stream"]},
        {"index": ["4-5"], "layout": ["u.{i}", "_"]},
    ]
    assert lines["axes"]["h.2.w"] == ["u.2", "stream | _1"]
    assert lines["groups"]["u.0"] == {"size": 3}  # the groups of the pattern differ, so each has its line


def test_experts_fold_over_both_numbers() -> None:
    axes = {
        f"layers.{i}.experts.{e}.{w}.weight": (f"unit.{i}.{e}", "stream")
        for i in (0, 2)
        for e in range(4)
        for w in "ab"
    }
    spec = PermutationSpec.from_axes(axes, {"stream": 8})
    round_trips(spec)
    line = json.loads(spec.to_json(folded=True))["axes"]["layers.{i}.experts.{j}.a.weight"]
    assert line == {"index": ["0,2", "0-3"], "layout": ["unit.{i}.{j}", "stream"]}


def test_stacks_buffers_and_ties_are_kept() -> None:
    spec = PermutationSpec.from_axes(
        {
            "layers.0.experts.*.w.weight": ("expert.0", "unit.0", "stream"),
            "layers.1.experts.*.w.weight": ("expert.1", "unit.1", "stream"),
            "bn.running_mean": ("stream",),
            "embed.weight": (None, "stream"),
        },
        groups=[Group(f"unit.{i}", within=(f"expert.{i}",)) for i in range(2)],
        tied={"head.weight": "embed.weight"},
        stacks={"layers.0.experts.*.w.weight": 4, "layers.1.experts.*.w.weight": 4},
        why_fixed={("embed.weight", 0): ("vocabulary",), ("head.weight", 0): ("output",)},
    )
    round_trips(spec)
    lines = json.loads(spec.to_json(folded=True))
    stacked = {"index": ["0-1"], "stack": 4, "layout": ["expert.{i}", "unit.{i}", "stream"]}
    assert lines["axes"]["layers.{i}.experts.*.w.weight"] == stacked
    assert lines["axes"]["bn.running_mean"] == {"buffer": True, "layout": ["stream"]}


def test_reasons_that_differ_do_not_unfold_a_line() -> None:
    axes: dict[str, tuple[str | None, ...]] = {f"h.{i}.w": ("s", None) for i in range(3)}
    why = {("h.0.w", 1): ("a",), ("h.1.w", 1): ("b", 'c "quoted" \x7f \u00e9'), ("h.2.w", 1): ("a",)}
    spec = PermutationSpec.from_axes(axes, why_fixed=why)
    round_trips(spec)
    assert list(json.loads(spec.to_json(folded=True))["axes"]) == ["h.{i}.w"]


names = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "10", "w"]), min_size=1, max_size=4).map(".".join)
group_names = st.lists(st.sampled_from(["g", "s", "0", "1", "10"]), min_size=1, max_size=3).map(".".join)
texts = st.one_of(
    st.none(),
    group_names,
    st.builds("{} _3 {}".format, group_names, group_names),
    st.builds("_2 | {}".format, group_names),
)


@given(st.dictionaries(names, st.lists(texts, max_size=3), max_size=8), st.data())
@settings(max_examples=150, deadline=None)
def test_random_specs_round_trip(axes: dict[str, list[str | None]], data: st.DataObject) -> None:
    plain = PermutationSpec.from_axes(axes)
    sizes = {name: data.draw(st.sampled_from([2, 3])) for name in plain.groups if data.draw(st.booleans())}
    buffers = [name for name in axes if data.draw(st.booleans())]
    round_trips(PermutationSpec.from_axes(axes, sizes, buffers=buffers))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('index = ["0-2"]', 'index = ["2-0"]', "not a range"),
        ('index = ["0-2"]', 'index = ["0-2", "1"]', "index for each of its 1 variables"),
        ('index = ["0-2"], ', "", "index for each of its 1 variables"),
        ('"kv.{i}" = {size = 2}', "", "no line for group 'kv.0'"),
        ('"kv.{i}" = {size = 2}', '"kv.{i}" = {size = 2}\n"kv.{j}" = {}', "two lines for group 'kv.0'"),
        ('"kv.{i}" = {size = 2}', '"kv.{ii}" = {size = 2}', "single small letters"),
        ('"kv.{i} v.{i}"', '"kv.{i} v.{j}"', r"variable \{j\} that the name has not"),
        ('"norm.weight"', '"layers.1.q_proj.weight"', "two lines give layouts to tensor 'layers.1.q_proj.weight'"),
        ("why = ", "reason = ", "unknown field 'reason'"),
        ("0 = [", "x = [", "not an axis number"),
        ("size = 16", "size = -16", "size is -16"),
        ("[groups]", "[groups", "no TOML"),
        ("version = 1", "version = 3", "version 3 is not 1"),
        ('"lmcfast-spec"', '"spec"', '"format" is not "lmcfast-spec"'),
        ("why = {", "stack = 3, why = {", "a stack and one part"),
    ],
)
def test_errors_are_one_line(old: str, new: str, reason: str, tmp_path: Path) -> None:
    assert old in LLAMA
    text = LLAMA.replace(old, new, 1)
    with pytest.raises(SpecError, match=reason) as caught:
        PermutationSpec.from_toml(text)
    assert "\n" not in str(caught.value)
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"spec\.toml: "):
        PermutationSpec.load(path)


def test_files_go_by_their_ending(tmp_path: Path) -> None:
    spec = PermutationSpec.from_toml(LLAMA)
    for name in ("spec.toml", "spec.json"):
        spec.save(tmp_path / name)
        assert PermutationSpec.load(tmp_path / name) == spec
    assert (tmp_path / "spec.toml").read_text().count("\n") < 20
    assert "folded" not in (tmp_path / "spec.json").read_text()


def renamed(text: str) -> PermutationSpec:
    return PermutationSpec.from_toml(text.replace("stream", "residual").replace("kv.{i}", "heads.{i}"))


def test_same_up_to_names() -> None:
    spec = PermutationSpec.from_toml(LLAMA)
    assert spec.same(renamed(LLAMA))
    assert spec != renamed(LLAMA)
    assert difference(spec, spec) is None
    one = PermutationSpec.from_axes({"w": ("[s ? a | b] [s = _1 | _1]", "[s ? c | d]")})
    other = PermutationSpec.from_axes({"w": ("[t ? b | a] [t = _1 | _1]", "[t ? c | d]")})
    assert one.same(other)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"kv.{i} v.{i}"', '"v.{i} kv.{i}"', r"layers.0.v_proj.weight\[0\]|layers.0.o_proj"),
        ('"_100", "stream"', '"_99", "stream"', r"embed.weight\[0\] is '_100' and '_99'"),
        ("size = 16", "size = 15", "group 'stream'"),
        (', within = ["kv.{i}"]}\n"v', '}\n"v', "group 'q.0'"),
        ('"norm.weight"', '"final.weight"', "'norm.weight' has no entry in the second"),
    ],
)
def test_what_differs_is_said(old: str, new: str, reason: str) -> None:
    assert old in LLAMA
    spec = PermutationSpec.from_toml(LLAMA)
    other = PermutationSpec.from_toml(LLAMA.replace(old, new, 1))
    assert not spec.same(other)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(difference(spec, other))


def test_bits_count_the_settings() -> None:
    spec = PermutationSpec.from_axes({"w": ("a b",), "v": ("a",)}, {"a": 3, "b": 2}, [Group("b", within=("a",))])
    assert 2**spec.bits == pytest.approx(6 * 2**3)
    assert PermutationSpec.from_axes({"w": ("a",)}, {"a": 3}, [Group("a", fixed=True)]).bits == 0
