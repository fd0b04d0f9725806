"""Results as Markdown tables: all of results/NAME.md, and parts that `readme.py` takes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.timing import geometric_mean

Entries = dict[str, Any]
Row = Sequence[str]


def grid(head: Row, rows: Iterable[Row]) -> list[str]:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


# preset -> what README says of it
GANS = {
    "dcgan": "DCGAN, non-saturating",
    "lsgan": "least squares",
    "wgan": "Wasserstein, clipped weights",
    "wgan-gp": "Wasserstein, gradient penalty",
    "sngan": "hinge, spectral norm",
    "r1gan": "R1 penalty",
    "vanilla": "Goodfellow's MLPs",
    "cgan": "conditional, projection",
    "acgan": "auxiliary classifier",
    "projection": "projection discriminator, residual",
    "biggan": "BigGAN, small",
    "sagan": "self-attention",
    "infogan": "InfoGAN",
    "began": "auto-encoding D",
    "pacgan": "packs of images for D",
}


def number(value: float | None, digits: int = 3) -> str:
    """Three digits, no exponent: 0.0123, 12.3, 1230."""
    if value is None or value != value:
        return "-"
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e" in text and value >= 1 else text


def error(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-")


def ratio(entry: Any, quartiles: bool = False) -> str:
    """1.35, or 1.35 (1.30-1.41)."""
    if "ratio" not in entry:
        return "-"
    found = entry["ratio"]
    text = f"{found['median']:.2f}"
    return f"{text} ({found['q1']:.2f}-{found['q3']:.2f})" if quartiles else text


# Whole document --------------------------------------------------------------------------------


def document(name: str | None, data: dict[str, Any]) -> str:
    """All tables of a results file."""
    lines = [f"# {name}", ""] if name else []
    lines += [*origin(data), ""]
    makers = {
        "layers": layers_tables,
        "ops": ops_tables,
        "steps": steps_table,
        "memory": memory_tables,
        "overhead": overhead_table,
        "quality": quality_tables,
        "gans": gans_table,
    }
    for section, make in makers.items():
        if data.get(section):
            lines += [f"## {section}", "", *run_lines(data["runs"].get(section, {}))]
            lines += [*make(data[section]), ""]
    return "\n".join(lines).rstrip() + "\n"


def origin(data: dict[str, Any]) -> list[str]:
    """Machine, versions, peaks."""
    m = data["machine"]
    text = f"{m['processor']}, {m['threads']} threads, {m['simd']} instructions"
    if m.get("torch_simd"):
        text += f" (PyTorch: {m['torch_simd']})"
    versions = [f"{key} {m[key]}" for key in ("python", "numpy", "numba", "torch") if m.get(key)]
    lines = [f"{text}; {', '.join(versions)}."]
    if data.get("peaks"):
        p = data["peaks"]
        curve = ", ".join(f"{size} {speed}" for size, speed in p["gbytes_per_second"].items())
        lines.append(
            f"Measured limits: {p['gflops']} GFLOP/s ({p['gflops_one_thread']} on one thread); "
            f"GB/s read and written, by working set: {curve}."
        )
    return lines


def run_lines(run: dict[str, Any]) -> list[str]:
    """When it was measured, and what disturbed it."""
    if not run:
        return []
    lines = [f"Last run {run['date']}, {run['seconds']} s."]
    if run.get("only"):
        lines[0] += f" Only: {run['only']}."
    lines += [f"**Not quiet**: {text}." for text in run["noise"]]
    lines += [f"**Failed**: {text}." for text in run.get("failed", [])]
    return [*lines, ""]


# Sections --------------------------------------------------------------------------------------


def ratios(entries: Iterable[Any]) -> list[float]:
    return [entry["ratio"]["median"] for entry in entries if "ratio" in entry]


def summary(entries: Entries, directions: Sequence[str]) -> list[str]:
    """Geometric means of the ratios by family and direction, and the weak ones."""
    families = list(dict.fromkeys(entry["family"] for entry in entries.values()))
    rows = []
    for family in [*families, "all"]:
        members = [e for e in entries.values() if family in ("all", e["family"])]
        values = ratios(members)
        if not values:
            continue
        parts = [ratios(e for e in members if e.get("direction") == d) for d in directions]
        rows.append(
            [
                family,
                str(len(values)),
                *(f"{geometric_mean(part):.2f}" if part else "-" for part in parts),
                f"{geometric_mean(values):.2f}",
                f"{min(values):.2f}",
                str(sum(value < 1 for value in values)),
                str(sum(value < 0.8 for value in values)),
            ]
        )
    head = ["PyTorch / minigan", "cases", *directions, "all", "least", "below 1", "below 0.8"]
    return grid(head, rows) if rows else []


def details(entries: Entries) -> list[str]:
    """One row per case."""
    rows = []
    for name, entry in entries.items():
        best = entry.get("best")
        wrong = entry.get("error", {})
        rows.append(
            [
                name,
                number(entry["ms"]["minigan"]["median"]),
                number(entry["ms"][best]["median"]) if best else "-",
                best.removeprefix("torch ") if best else "-",
                ratio(entry, quartiles=True),
                number(entry["floor_ms"]),
                number(entry["reached"]["minigan"], 2),
                number(entry["reached"][best], 2) if best else "-",
                error(wrong["minigan"]["l2"]) if wrong else "-",
                error(wrong[best]["l2"]) if wrong and best else "-",
                error(wrong["minigan"]["max"]) if wrong else "-",
                error(wrong[best]["max"]) if wrong and best else "-",
                entry.get("algorithm", ""),
            ]
        )
    head = ["case", "minigan ms", "PyTorch ms", "its best", "PyTorch / minigan", "floor ms"]
    head += ["reached", "PyTorch", "error L2", "PyTorch", "error max/std", "PyTorch", ""]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return grid(head, rows)


def layers_tables(entries: Entries) -> list[str]:
    return [*summary(entries, ("forward", "input", "weight")), "", *details(entries)]


def ops_tables(entries: Entries) -> list[str]:
    return [*summary(entries, ("forward", "backward", "step")), "", *details(entries)]


def steps_table(entries: Entries) -> list[str]:
    rows = []
    for name, entry in entries.items():
        best = entry.get("best")
        rows.append(
            [
                name,
                number(entry["ms"]["minigan"]["median"]),
                number(entry["ms"][best]["median"]) if best else "-",
                f"{best.removeprefix('torch ')}, {entry['adam']} Adam" if best else "-",
                ratio(entry, quartiles=True),
                number(entry["gflop"]),
                number(entry["mbyte"]),
                number(entry["floor_ms"]),
                number(entry["reached"]["minigan"], 2),
                number(entry["reached"][best], 2) if best else "-",
                error(entry["difference"]) if best else "-",
            ]
        )
    head = ["step", "minigan ms", "PyTorch ms", "its best", "PyTorch / minigan", "GFLOP", "MB"]
    return grid([*head, "floor ms", "reached", "PyTorch", "losses differ by"], rows)


def memory_tables(entries: Entries) -> list[str]:
    """Peaks of steps, and working memory of layers."""
    lines: list[str] = []
    steps = {name: e for name, e in entries.items() if e["family"] == "step"}
    if steps:
        rows = []
        for name, entry in steps.items():
            detail = entry["detail"]
            mine = detail["minigan"]
            best = min(
                (s for s in detail if s != "minigan"),
                key=lambda s: detail[s]["peak_mb"],
                default=None,
            )
            theirs = detail[best] if best else {}
            rows.append(
                [
                    name.removeprefix("step "),
                    number(mine["peak_mb"]),
                    number(theirs.get("peak_mb")),
                    best.removeprefix("torch ") if best else "-",
                    number(theirs["peak_mb"] / mine["peak_mb"]) if best else "-",
                    number(mine["weights_and_adam_mb"]),
                    number(mine["rest_mb"]),
                    number(theirs.get("rest_mb")),
                ]
            )
        head = ["peak of a step, MB", "minigan", "PyTorch", "its best", "PyTorch / minigan"]
        lines += grid([*head, "weights and Adam", "rest minigan", "rest PyTorch"], rows)
    layers = {name: e for name, e in entries.items() if e["family"] == "workspace"}
    if layers:
        rows = []
        for name, entry in layers.items():
            row = [name.removeprefix("workspace ")]
            for by_side in entry["mb"].values():
                theirs = [mb for s, mb in by_side.items() if s != "minigan"]
                least = f"{min(theirs):.1f}" if theirs else "-"
                row.append(f"{by_side['minigan']:.1f} : {least}")
            rows.append(row)
        head = ["working memory, MB, minigan : PyTorch's best", "forward", "input", "weight"]
        lines += ["", *grid(head, rows)]
    return lines


def overhead_table(entries: Entries) -> list[str]:
    rows = [
        [
            name,
            f"{number(entry['minigan'])} {entry['unit']}",
            f"{number(entry['torch'])} {entry['unit']}" if "torch" in entry else "-",
            f"{entry['ratio']:.2f}" if "ratio" in entry else "-",
        ]
        for name, entry in entries.items()
    ]
    return grid(["what", "minigan", "PyTorch", "PyTorch / minigan"], rows)


# The table -------------------------------------------------------------------------------------


def quality_tables(entries: Entries) -> list[str]:
    """Median FIDs over the seeds, each with all of them."""
    lines: list[str] = []
    for group in dict.fromkeys(entry["group"] for entry in entries.values()):
        members = [entry for entry in entries.values() if entry["group"] == group]
        floor = number(members[0]["floor"])
        lines += [f"{group}; real training images have {floor}.", "", *quality_rows(members), ""]
    return lines[:-1]


def quality_rows(members: Sequence[Any]) -> list[str]:
    """One row per engine, variant and net; the ratio is to PyTorch's, below 1 ours is better."""
    kinds = [
        (entry["engine"], entry["variant"], net)
        for net in ("raw", "ema")
        for entry in members
        if net in entry
    ]
    steps = sorted({int(step) for entry in members for step in entry["raw"]})
    base = fids(members, {"engine": "torch", "variant": ""}, "raw")
    lines = []
    for engine, variant, net in dict.fromkeys(kinds):
        found = fids(members, {"engine": engine, "variant": variant}, net)
        cells = [" ".join(filter(None, (engine, variant, net)))]
        for step in steps:
            cells.append(with_all(found.get(step, [])))
            if engine == "torch" or step not in found or step not in base:
                cells.append("-")
            else:
                ratio = statistics.median(found[step]) / statistics.median(base[step])
                cells.append(f"{ratio:.2f}")
        lines.append(cells)
    head = [cell for step in steps for cell in (f"FID, {step} steps", "/ PyTorch's")]
    return grid(["engine, net", *head], lines)


def gans_table(entries: Entries) -> list[str]:
    """One row per GAN of the gallery."""
    rows = []
    for preset, what in GANS.items():
        e = entries.get(preset)
        if e:
            right = f"{e['class_accuracy']:.1%}" if "class_accuracy" in e else "-"
            minutes = f"{e['training_seconds'] / 60:.1f} ({e['threads']})"
            figures = [number(e["fid"]), number(e["precision"]), number(e["recall"]), right]
            rows.append([f"`{preset}`: {what}", f"{e['steps']:,}", minutes, *figures])
    head = ["preset", "steps", "minutes (threads)", "FID", "precision", "recall", "right class"]
    return grid(head, rows)


def fids(members: Sequence[Any], like: dict[str, Any], net: str) -> dict[int, list[float]]:
    """step -> the FIDs of all seeds of one engine and variant."""
    found: dict[int, list[float]] = {}
    for entry in members:
        if all(entry[key] == value for key, value in like.items()):
            for step, figures in entry.get(net, {}).items():
                found.setdefault(int(step), []).append(figures["fid"])
    return dict(sorted(found.items()))


def with_all(found: Sequence[float]) -> str:
    """The median, and all in brackets."""
    if not found:
        return "-"
    each = ", ".join(number(value) for value in found)
    return f"{number(statistics.median(found))} ({each})"
