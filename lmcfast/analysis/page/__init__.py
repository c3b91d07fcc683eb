"""Reports as one self-contained HTML file: text, tables and figures in sections, readable on a desktop and a phone."""

from .blocks import Block, Figure, Figures, Notice, Page, Section, Table, Text, Tone
from .render import render_page, save_page

__all__ = [
    "Block",
    "Figure",
    "Figures",
    "Notice",
    "Page",
    "Section",
    "Table",
    "Text",
    "Tone",
    "render_page",
    "save_page",
]
