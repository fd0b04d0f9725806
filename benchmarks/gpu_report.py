"""What `python -m benchmarks gpu` has measured, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import write
from benchmarks.tables import error, grid, number
from benchmarks.timing import geometric_mean

Entries = dict[str, Any]
TIMED = ("layers", "ops", "steps", "compile")
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"


def line(entry: dict[str, Any]) -> str:
    """An entry on one line."""
    if "ms" not in entry:
        from benchmarks.gpu_conformance import line as errors

        return errors(entry)
    ours = entry["ms"][entry["ours"]]["median"]
    text = f"{entry['ours']} {ours:.4f} ms, reached {entry['floor_ms'] / ours:.2f}"
    for name, ratio in entry.get("ratios", {}).items():
        text += f", {name} {entry['ms'][name]['median']:.4f} ms ({ratio:.2f})"
    if entry["ours"] in entry.get("error", {}):
        text += f", error {entry['error'][entry['ours']]:.0e}"
    return text + "".join(f", {name} skipped" for name in entry.get("skipped", {}))


def document(name: str | None, data: dict[str, Any]) -> str:
    """All of it."""
    lines = [f"# {name or 'GPU'}, {data.get('date', 'no date')}", ""]
    lines += [f"- {key}: {number(v) if isinstance(v, float) else v}"
              for key, v in data.get("facts", {}).items()]  # fmt: skip
    lines += ["", *short(data), *checks(data)]
    for section in TIMED:
        if data.get(section):
            lines += ["", f"## {section}", "", *summary(data[section]), "", *table(data[section])]
            lines += notes(data[section])
    return "\n".join(lines) + "\n"


def short(data: dict[str, Any]) -> list[str]:
    """README's table: whole steps, and geometric means over layers and operations."""
    rows = []
    for section in ("steps", "compile"):
        for case, e in data.get(section, {}).items():
            found = [number(e["ms"][e["ours"]]["median"]), "-", "-"]
            if e.get("ratios"):
                best = (
                    f"{number(e['ms'][e['best']]['median'])} ({e['best'].removeprefix('torch ')})"
                )
                found[1:] = best, f"{min(e['ratios'].values()):.2f}"
            rows.append([f"{case} step", *found])
    for section, what in (("layers", "convolutions"), ("ops", "operations")):
        for family, members in families(data.get(section, {})).items():
            ratios = [min(e["ratios"].values()) for e in members if e.get("ratios")]
            ratio = f"{geometric_mean(ratios):.2f}" if ratios else "-"
            rows.append([f"{what}: {family}, mean of {len(members)}", "-", "-", ratio])
    return grid(["on a GPU", "minigan ms", "PyTorch's best ms", "PyTorch / minigan"], rows)


def rewrite_readme(name: str, data: dict[str, Any]) -> int:
    """Put the short table between README's markers."""
    facts = data["facts"]
    versions = ", ".join(f"{key} {facts[key]}" for key in ("torch", "cupy") if key in facts)
    origin = f"{facts.get('device', name)}, {versions}, {data.get('date')}"
    body = "\n".join([BEGIN, "", origin, "", *short(data), "", END])
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    write(README, pattern.sub(lambda _: body, README.read_text(), count=1))
    return 0


def families(entries: Entries) -> dict[str, list[Any]]:
    """Entries that belong together."""
    found: dict[str, list[Any]] = {}
    for e in entries.values():
        found.setdefault(e["family"], []).append(e)
    return found


def checks(data: dict[str, Any]) -> Iterator[str]:
    """Conformance, tests, sanitizer, and what is missing."""
    if data.get("conformance"):
        cases = data["conformance"]
        wrong = [n for n, e in cases.items() if e["faults"]]
        yield from ("", f"Conformance: {len(cases)} cases, {len(wrong)} wrong.", "")
        kinds = ("float32", "tf32", "float64")
        rows = [
            [n, *(error(e["error"][k]) if k in e["error"] else "-" for k in kinds),
             "; ".join(e["faults"]) or "-"]
            for n, e in cases.items()
        ]  # fmt: skip
        yield from grid(["kernel, error against float64", *kinds, "faults"], rows)
    if "tests" in data:
        found = data["tests"]
        last = (found["tail"].strip().splitlines() or [""])[-1]
        yield from ("", f"Tests: status {found['status']}, {found['seconds']:.0f} s. {last}")
    for tool, found in data.get("sanitizer", {}).items():
        yield from ("", f"{tool}: status {found['status']}, {found['summary']}")
    if any(data.get(kind) for kind in ("failed", "left out", "skipped")):
        yield ""
    for section, entries in data.get("failed", {}).items():
        yield from (f"- **Failed** {section} {n}: {why}" for n, why in entries.items())
    for section, names in data.get("left out", {}).items():
        yield f"- No time for {section}: {', '.join(names)}"
    for section, why in data.get("skipped", {}).items():
        yield f"- {section} skipped: {why}"


def summary(entries: Entries) -> list[str]:
    """Geometric means of PyTorch's times over ours, by family."""
    names = sorted({name for e in entries.values() for name in e.get("ratios", {})})
    groups = families(entries)
    if len(groups) > 1:
        groups["all"] = list(entries.values())
    rows = []
    for family, members in groups.items():
        found = [[e["ratios"][n] for e in members if n in e.get("ratios", {})] for n in names]
        best = [min(e["ratios"].values()) for e in members if e.get("ratios")]
        means = [f"{geometric_mean(r):.2f}" if r else "-" for r in (*found, best)]
        reached = geometric_mean([_reached(e) for e in members])
        rows.append([family, str(len(members)), *means, f"{reached:.2f}"])
    return grid(["PyTorch / minigan", "cases", *names, "its best", "reached"], rows)


def table(entries: Entries) -> list[str]:
    """Every entry: milliseconds of each side, and the errors of ours and of PyTorch's best."""
    names = list(dict.fromkeys(name for e in entries.values() for name in e["ms"]))
    rows = []
    for case, e in entries.items():
        ms = [number(e["ms"][n]["median"]) if n in e["ms"] else "-" for n in names]
        ratio = f"{min(e['ratios'].values()):.2f}" if e.get("ratios") else "-"
        errors = [
            error(e["error"][n]) if n in e.get("error", {}) else "-"
            for n in (e["ours"], e.get("best"))
        ]
        rows.append([case, *ms, ratio, f"{_reached(e):.2f}", *errors])
    head = [f"{name} ms" for name in names]
    return grid(["case", *head, "best / ours", "reached", "our error", "its error"], rows)


def notes(entries: Entries) -> Iterator[str]:
    """What was not measured within an entry, and why."""
    for case, e in entries.items():
        if e.get("faults"):
            yield from ("", f"- **Wrong** {case}: {'; '.join(e['faults'])}")
    missing = [(n, s, why) for n, e in entries.items() for s, why in e.get("skipped", {}).items()]
    if missing:
        yield ""
    for case, side, why in missing:
        yield f"- {case}, {side}: {why}"


def _reached(entry: Any) -> float:
    return float(entry["floor_ms"] / entry["ms"][entry["ours"]]["median"])
