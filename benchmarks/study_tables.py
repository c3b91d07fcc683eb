"""Tables of several studies side by side, as docs/study.md has them: python benchmarks/study_tables.py FOLDER ...

Each FOLDER is one that `lmcfast study -o FOLDER` filled. --keep FILE writes what the tables need of them (nothing per
layer), and --of FILE prints the tables of such a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmcfast.analysis.page import Table
from lmcfast.study import study_claims, study_tables, width_picture
from lmcfast.study.tables import study_label

MARK = "<!-- tables of benchmarks/study_tables.py -->"
DROPPED = {"per_layer", "plane", "spectra", "inputs", "curve", "claims"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--of", type=Path, metavar="FILE", help="a file that --keep wrote")
    parser.add_argument("--keep", type=Path, metavar="FILE")
    parser.add_argument("--into", type=Path, metavar="PAGE", help=f"put the tables between the page's two marks {MARK}")
    parser.add_argument("--widths", type=Path, metavar="PICTURE", help="draw the barrier against the width")
    options = parser.parse_args()
    studies = [json.loads((folder / "study.json").read_text()) for folder in options.folders]
    if options.of is not None:
        studies += json.loads(options.of.read_text())
    if not studies:
        parser.error("give a FOLDER or --of FILE")
    if options.keep is not None:
        options.keep.write_text(json.dumps([slim(study) for study in studies], indent=1) + "\n")
    if options.widths is not None:
        width_picture(studies).savefig(options.widths)
    if options.into is None:
        print(report(studies))
    else:
        before, _, after = options.into.read_text().split(MARK)
        options.into.write_text(f"{before}{MARK}\n\n{report(studies)}\n\n{MARK}{after}")


def slim(value: Any) -> Any:
    """Without what only pictures need; figures with six digits."""
    if isinstance(value, dict):
        return {key: slim(item) for key, item in value.items() if key not in DROPPED}
    if isinstance(value, list):
        return [slim(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def report(studies: Sequence[dict[str, Any]]) -> str:
    """All tables as Markdown."""
    tables = [claims(studies), *study_tables(studies)]
    conditions = [f"{study_label(study)}: {made(study)}" for study in studies]
    return "\n\n".join([*(f"**{table.caption}**\n\n{table.markdown()}" for table in tables), *conditions])


def made(study: dict[str, Any]) -> str:
    """Date, machine, and how much was measured."""
    machine, settings = study["machine"], study["settings"]
    counts = f"{len(study['searches']['none'])} searches, {len(study['triples']['none'])} threes"
    trained = f"{settings['recipe']['epochs']} epochs, seeds {', '.join(study['networks'])}"
    ste = f", straight-through estimator {study['ste_steps']} steps" if "ste" in settings["methods"] else ""
    return (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, {machine['threads']} thread(s), torch "
        f"{machine['torch']}; {trained}; {counts}; losses on {settings['images']} images, costly measures on "
        f"{settings['costly_images']}{ste}."
    )


def claims(studies: Sequence[dict[str, Any]]) -> Table:
    """One row for each claim, one column for each study."""
    told = [{claim.number: claim for claim in study_claims(study)} for study in studies]
    rows = []
    for number in dict.fromkeys(number for one in told for number in one):
        text = next(f"{one[number].text} ({one[number].criterion})" for one in told if number in one)
        cells = [cell(one[number]) if number in one else None for one in told]
        rows.append([f"{number} {text}", *cells])
    return Table(["claim (criterion)", *map(study_label, studies)], rows, "Claims")


def cell(claim: Any) -> str:
    mark = {True: "yes", False: "**no**", None: "–"}[claim.reproduced]
    return f"{mark}: {claim.figures}" if claim.figures else mark


if __name__ == "__main__":
    main()
