"""Pages: one file with everything in it, text escaped, the same page the same bytes."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import lmcfast
from lmcfast.analysis import Barrier, plot_barrier
from lmcfast.analysis.page import Figure, Figures, Notice, Page, Section, Table, Text, render, render_page, save_page

pytest.importorskip("matplotlib", reason="figures need matplotlib")
pytest.importorskip("jinja2", reason="pages need jinja2")

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """The tags and text of a page; fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def page() -> Page:
    lambdas = np.array([0.0, 0.5, 1.0])
    figure = plot_barrier({"a <b>": Barrier(lambdas, lambdas)})
    table = Table(["layer", "R", "kept"], [["x & y", 0.123456, 12], ["z", None, "a sentence of more than 24 letters"]])
    return Page(
        "A <script>alert(1)</script>",
        "the lead",
        [
            Section("First", [Text("5 < 6"), Notice("it works", "good", "Yes.")]),
            Section("Second", [table, Table(["a"], [["hidden"]], "More", folded=True)]),
            Section("Third", [Figures([Figure(figure, "the caption", "what is to be seen")])]),
        ],
    )


def test_everything_is_in_the_page_and_nothing_is_loaded() -> None:
    html = render_page(page())
    reader = read(html)
    tags = [tag for tag, _ in reader.tags]
    assert "script" not in tags
    assert "link" not in tags
    for tag, attributes in reader.tags:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, value)
    assert not re.search(r"@import|url\(", html)
    for wanted in (
        "A <script>alert(1)</script>",
        "the lead",
        "5 < 6",
        "Yes.",
        "it works",
        "x & y",
        "0.1235",
        "12",
        "–",
    ):
        assert wanted in reader.text
    assert tags.count("table") == 2
    assert tags.count("details") == 1
    (image,) = (attributes for tag, attributes in reader.tags if tag == "img")
    assert image["alt"] == "what is to be seen"
    words = [attributes for tag, attributes in reader.tags if attributes.get("class") == "words"]
    assert len(words) == 3  # the third column: head and two rows


def test_sections_are_listed_and_the_links_lead_to_them() -> None:
    reader = read(render_page(page()))
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    places = [f"#{attributes['id']}" for tag, attributes in reader.tags if tag == "section"]
    assert links == places
    assert len(links) == 3


def test_the_same_page_gives_the_same_bytes(tmp_path: Path) -> None:
    save_page(page(), tmp_path / "a.html")
    save_page(page(), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    with pytest.raises(lmcfast.CheckpointError, match=r"a\.html: exists"):
        save_page(page(), tmp_path / "a.html", overwrite=False)
    with pytest.raises(lmcfast.CheckpointError, match="none"):
        save_page(page(), tmp_path / "none" / "a.html")


def test_large_pictures_become_png(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 'src="data:image/svg+xml;base64,' in render_page(page())
    monkeypatch.setattr(render, "LARGEST_VECTOR", 1000)
    html = render_page(page())
    assert "image/svg" not in html
    assert 'src="data:image/png;base64,' in html


def test_tables_for_markdown_and_of_a_wrong_shape() -> None:
    table = Table(["a", "b"], [["x|y", 1.0], [None, 20000]])
    assert table.markdown() == "| a | b |\n| --- | --- |\n| x\\|y | 1 |\n| – | 20000 |"
    with pytest.raises(ValueError, match="rows: each must have 2 cells, as the head has, not 1"):
        Table(["a", "b"], [["x"]])


def test_a_missing_jinja2_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(lmcfast.UnavailableError, match=r"pip install lmcfast\[report\]"):
        save_page(page(), tmp_path / "a.html")
    assert not list(tmp_path.iterdir())
