"""The tables in README.md and benchmarks/README.md, between two markers, from saved results."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import gpu_report
from benchmarks.results import FOLDER, SECTIONS, path_of, read, write
from benchmarks.tables import (
    Entries,
    fids,
    grid,
    number,
    origin,
    ratio,
    ratios,
    steps_table,
    summary,
)
from benchmarks.timing import geometric_mean

ROOT = Path(__file__).parent.parent
READMES = {ROOT / "README.md": "short", ROOT / "benchmarks" / "README.md": "floors"}
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"

STEPS = {
    "dcgan28 w64": "DCGAN step, 28 px, batch 64, width 64",
    "dcgan28 w32": "DCGAN step, 28 px, batch 64, width 32",
    "dcgan64": "DCGAN step, 64 px, batch 16, 1024 maps",
    "cyclegan128": "CycleGAN step, 128 px, batch 1",
    "spade128": "SPADE step, 128 px, batch 1",
}
SIDES = ("minigan", "torch")
OVERHEAD = {
    "tiny operation": "tiny operation, forward and backward",
    "tiny operation, graph": "the same under create_graph",
    "compile cold": "compilation in the main job, first time",
    "compile cached": "the same from the cache",
    "import minigan": "`import minigan` beyond NumPy",
}


def short(name: str, data: dict[str, Any]) -> list[str]:
    """README's table: whole steps, means over layers and operations, memory, overhead."""
    rows = [*step_rows(data), *mean_rows(data), *memory_rows(data), *overhead_rows(data)]
    rows += quality_rows(data)
    head = ["what", "minigan", "PyTorch", "PyTorch / minigan"]
    return [*provenance(name, data), "", *grid(head, rows)]


def step_rows(data: dict[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = []
    for key, what in STEPS.items():
        entry = data.get("steps", {}).get(key)
        if entry:
            best = entry.get("best")
            ours = f"{number(entry['ms']['minigan']['median'])} ms"
            other = f"{number(entry['ms'][best]['median'])} ms" if best else "-"
            rows.append([what, ours, other, ratio(entry)])
    return rows


def mean_rows(data: dict[str, Any]) -> list[list[str]]:
    """Geometric means; a case of which PyTorch is not known does not count."""
    layers, ops = data.get("layers", {}).values(), data.get("ops", {}).values()
    groups = [
        (f"convolutions, {what}", [e for e in layers if e["direction"] == key])
        for key, what in (
            ("forward", "forward"),
            ("input", "input gradient"),
            ("weight", "weight gradient"),
        )
    ]
    groups += [
        ("norm + activation", [e for e in ops if e["family"] == "norm+act"]),
        ("Adam", [e for e in ops if e["family"] == "adam"]),
    ]
    rows: list[list[str]] = []
    for what, entries in groups:
        values = ratios(entries)
        if values:
            text = f"{what}: geometric mean of {len(values)} cases"
            rows.append([text, "", "", f"{geometric_mean(values):.2f}"])
    return rows


def memory_rows(data: dict[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = []
    for key, what in STEPS.items():
        entry = data.get("memory", {}).get(f"step {key}")
        if entry:
            by_side = entry["mb"]["step"]
            mine = by_side["minigan"]
            theirs = min((mb for side, mb in by_side.items() if side != "minigan"), default=None)
            other = "-" if theirs is None else f"{number(theirs)} MB"
            share = "-" if theirs is None else f"{theirs / mine:.2f}"
            rows.append([f"peak memory, {what}", f"{number(mine)} MB", other, share])
    return rows


def overhead_rows(data: dict[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = []
    for key, what in OVERHEAD.items():
        entry = data.get("overhead", {}).get(key)
        if entry:
            other = f"{number(entry['torch'])} {entry['unit']}" if "torch" in entry else "-"
            share = f"{entry['ratio']:.2f}" if "ratio" in entry else "-"
            rows.append([what, f"{number(entry['minigan'])} {entry['unit']}", other, share])
    return rows


def quality_rows(data: dict[str, Any]) -> list[list[str]]:
    """Median FIDs of DCGAN as it is; another width or data set stands in the results only."""
    entries = list(data.get("quality", {}).values())
    first = entries[0]["group"] if entries else ""
    usual = [e for e in entries if e["group"] == first and not e["variant"]]
    found = {name: fids(usual, {"engine": name, "variant": ""}, "raw") for name in SIDES}
    rows: list[list[str]] = []
    for step, values in found["minigan"].items():
        mine, theirs = statistics.median(values), found["torch"].get(step)
        other = statistics.median(theirs) if theirs else None
        text = f"FID of DCGAN after {step} steps ({first}), median of {len(values)} seeds"
        share = "-" if other is None else f"{other / mine:.2f}"
        rows.append([text, number(mine), number(other), share])
    return rows


def provenance(name: str, data: dict[str, Any]) -> list[str]:
    """From where and when the figures of a README are."""
    m = data["machine"]
    entries = [entry for section in SECTIONS for entry in data.get(section, {}).values()]
    dates = sorted({entry["date"] for entry in entries})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "no day"
    torch = f"PyTorch {m['torch']}" if m.get("torch") else "without PyTorch"
    text = [
        f"Measured {when} on {m['processor']}, {m['threads']} threads on both sides, {m['simd']}",
        f"instructions; NumPy {m['numpy']}, Numba {m['numba']}, {torch}. Made by",
        f"`python -m benchmarks table {name}` from `benchmarks/results/{name}.json`.",
    ]
    if any(run["noise"] for run in data.get("runs", {}).values()):
        text.append("The machine was not quiet all the time: see the notes there.")
    return text


def floors(name: str, data: dict[str, Any]) -> list[str]:
    """The tables of benchmarks/README: predicted and measured."""
    lines = [*provenance(name, data), *origin(data)[1:], ""]
    if data.get("steps"):
        lines += [*steps_table(data["steps"]), ""]
    for section, directions in (
        ("layers", ("forward", "input", "weight")),
        ("ops", ("forward", "backward", "step")),
    ):
        entries = data.get(section, {})
        if entries:
            lines += [f"{section}:", "", *summary(entries, directions), "", *reached(entries), ""]
    return lines[:-1]


def reached(entries: Entries) -> list[str]:
    """Median share of the floor's speed, by family."""
    families = list(dict.fromkeys(entry["family"] for entry in entries.values()))
    rows: list[list[str]] = []
    for family in families:
        members = [e for e in entries.values() if e["family"] == family]
        ours = sorted(e["reached"]["minigan"] for e in members)
        theirs = sorted(e["reached"][e["best"]] for e in members if "best" in e)
        rows.append([family, middle(ours), middle(theirs)])
    return grid(["floor / measured, median", "minigan", "PyTorch"], rows)


def middle(values: Sequence[float]) -> str:
    return number(values[len(values) // 2], 2) if values else "-"


def rewrite(text: str, lines: Sequence[str]) -> str:
    """A text with what stands between the markers replaced."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    if not pattern.search(text):
        raise ValueError(f"the text has no lines {BEGIN} and {END}")
    body = "\n".join([BEGIN, "", *lines, "", END])
    return pattern.sub(lambda _: body, text, count=1)


def rewrite_readme(name: str) -> int:
    """Put the tables of saved results into README.md and benchmarks/README.md."""
    if not path_of(name).exists():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.json"))) or "none yet"
        print(f"there are no results '{name}' (known: {known})", file=sys.stderr)
        return 2
    data = read(name)
    if "facts" in data:  # of a GPU
        return gpu_report.rewrite_readme(name, data)
    if "runs" not in data:
        print(f"results/{name}.json has an older form: measure again", file=sys.stderr)
        return 2
    for path, kind in READMES.items():
        lines = short(name, data) if kind == "short" else floors(name, data)
        write(path, rewrite(path.read_text(), lines))
        print(f"wrote {path.relative_to(ROOT)}")
    return 0
