"""Specs derived from the networks of the zoo hold, and miss nothing that the probe finds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from bench_spec import examine
from helpers import zoo

QUICK = {
    "torch": zoo.names("torch"),
    "torchvision": ("torchvision_convnext", "torchvision_vit"),
    "timm": ("timm_vit_qk_norm",),
    "transformers": ("gpt2", "llama", "bert", "t5", "mixtral"),
}
"""What every run of the tests covers; the others are marked long."""

BLIND = {
    "pixel_shuffle": {"enter.bias"},  # instance norm takes each channel's mean away
}
"""Tensors that have no effect on the output, so that the proof says nothing about them."""

CASES = [
    pytest.param(name, id=name, marks=[] if name in QUICK[source] else [pytest.mark.long])
    for source in zoo.SOURCES
    for name in zoo.names(source)
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The networks are tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CASES)
def test_derived_spec_is_proved(name: str) -> None:
    source = zoo.ENTRIES[name].source
    if source != "torch":
        zoo.mend_torchvision()
        pytest.importorskip(source, reason=f"{source} is not installed (pip install 'lmcfast[zoo]')")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the networks' own
        row = examine(name)
    assert "wrong" not in row, row["wrong"]
    assert row["unsupported"] == {}
    assert row["missed"] == []
    assert row["groups"] > 0
    assert row["moved"] > len(row["insensitive"])
    if name in BLIND or source == "torch":
        assert set(row["insensitive"]) == BLIND.get(name, set())
