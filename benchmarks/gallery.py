"""Every GAN of the library on MNIST: trained for a few minutes by its preset, measured, pictured.

    python -m benchmarks gallery --save gans-mnist
    python -m benchmarks gallery --save gans-mnist --only cgan,acgan --minutes 5

For each preset this runs `minigan train PRESET --data mnist --minutes 4.5`, `minigan evaluate` with
10,000 images and `minigan sample`, and writes the figures to benchmarks/results/NAME.json and the
picture to examples/pictures/gallery/PRESET.png. A run that lies in --runs already (`*-PRESET`) is
not trained again. With a name, README's table of GANs is written anew.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import Results, write
from benchmarks.tables import GANS, gans_table, number

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "examples" / "pictures" / "gallery"
BEGIN, END = "<!-- gans: begin -->", "<!-- gans: end -->"

KEPT = ("fid", "kid", "precision", "recall", "density", "coverage", "classes", "class_accuracy")


def main(options: Any) -> int:
    """The command `gallery`."""
    from benchmarks import machine

    results = Results(options.save, machine.facts())
    wanted = options.only.split(",") if options.only else list(GANS)
    for preset in wanted:
        if preset not in GANS:
            print(f"there is no {preset}; there are {', '.join(GANS)}", file=sys.stderr)
            return 2
        try:
            results.add("gans", preset, entry(preset, options))
        except subprocess.CalledProcessError as error:
            print(f"{preset}: {error}", file=sys.stderr)
            results.fail("gans", preset, error)
        if options.save:
            rewrite_readme(results.data)
    print("\n".join(gans_table(results.data.get("gans", {}))))
    return 0


def entry(preset: str, options: Any) -> dict[str, Any]:
    """Train if there is no run, measure, draw a picture."""
    found = sorted(options.runs.glob(f"*-{preset}"))
    if not found:
        budget = ["--minutes", str(options.minutes), "--seed", "0", "--no-progress"]
        minigan("train", preset, "--data", "mnist", *budget, "--out", options.runs,
                "--name", preset)  # fmt: skip
        found = sorted(options.runs.glob(f"*-{preset}"))
    run = found[0]
    told = json.loads(minigan("evaluate", run, "--data", "mnist", "--json"))
    PICTURES.mkdir(parents=True, exist_ok=True)
    minigan("sample", run, "--grid", "6x10", "--out", PICTURES / f"{preset}.png")
    last = json.loads((run / "stats.jsonl").read_text().splitlines()[-1])
    return {
        "date": datetime.datetime.now().isoformat(" ", "minutes"),
        "steps": told["step"],
        "training_seconds": last["sec"],
        "threads": json.loads((run / "env.json").read_text())["threads"],
        "images": told["figures"]["n"],
        "floor": told["floor"]["fid"],
        **{name: told["figures"][name] for name in KEPT if name in told["figures"]},
    }


def minigan(*command: Any) -> str:
    """Run the command line; its progress goes to the screen, its last line of JSON is returned."""
    print("minigan", *command, file=sys.stderr, flush=True)
    parts = [sys.executable, "-m", "minigan", *map(str, command)]
    done = subprocess.run(parts, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def pictures(entries: dict[str, Any]) -> list[str]:
    """The pictures, with the names under them."""
    cells = [
        f'<td align="center"><img src="examples/pictures/gallery/{preset}.png" width="230"><br>'
        f"{preset}</td>"
        for preset in GANS
        if preset in entries
    ]
    rows = ["<tr>" + "".join(cells[i : i + 3]) + "</tr>" for i in range(0, len(cells), 3)]
    return ["<table>", *rows, "</table>"]


def rewrite_readme(data: dict[str, Any]) -> None:
    """Put the table and the pictures between README's markers."""
    entries, facts = data["gans"], data["machine"]
    dates = sorted(e["date"][:10] for e in entries.values())
    floor = number(next(iter(entries.values()))["floor"])
    said = (
        f"MNIST, seed 0, on {facts['processor']}, {dates[-1]}. FID by "
        f"features of the library's own classifier, 10,000 images; as many real ones have {floor}."
    )
    lines = [BEGIN, "", said, "", *gans_table(entries), "", *pictures(entries), "", END]
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    readme = ROOT / "README.md"
    write(readme, pattern.sub(lambda _: "\n".join(lines), readme.read_text(), count=1))
