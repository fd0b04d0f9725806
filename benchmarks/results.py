"""The figures of a machine: benchmarks/results/NAME.json, and NAME.md with the same as tables.

machine   processor, threads, versions
peaks     arithmetic and bandwidth, as `peaks.py` measures them
runs      per section: date, options, and how quiet the machine was
layers, ops, steps, memory, overhead
          one entry per case, each with its date; a later run replaces what it measures again
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
SECTIONS = ("layers", "ops", "steps", "memory", "overhead")
SAME = ("processor", "threads", "simd")  # or else figures do not belong together


class OtherMachine(Exception):
    """The name belongs to results of another machine, or of other settings."""


class Results:
    """Figures in memory, written after every entry if they have a name.

    Parameters
    ----------
    name : of the file under benchmarks/results/; None keeps them in memory only.
    machine : see `machine.facts`; compared with that of the file.
    """

    def __init__(self, name: str | None, machine: dict[str, Any]) -> None:
        self.name = name
        self.failed: list[str] = []
        self.data: dict[str, Any] = {"machine": machine, "peaks": {}, "runs": {}}
        if name and path_of(name).exists():
            before = read(name)
            known = before.get("machine", {})
            if "runs" in before and any(known.get(key) != machine[key] for key in SAME):
                text = ", ".join(f"{key} {known.get(key)}" for key in SAME)
                raise OtherMachine(f"results/{name}.json was measured with {text}")
            if "runs" in before:
                self.data = before | {"machine": machine}

    def add(self, section: str, name: str, entry: dict[str, Any]) -> None:
        """Take in an entry, in place of an earlier one of that name."""
        self.data.setdefault(section, {})[name] = entry
        self.save()

    def fail(self, section: str, name: str, error: Exception) -> None:
        """Remember that a case could not be measured; an earlier entry of it goes."""
        self.failed.append(f"{name}: {type(error).__name__}: {error}")
        self.data.get(section, {}).pop(name, None)
        self.save()

    def note_run(self, section: str, run: dict[str, Any]) -> None:
        """Take in how a section was run."""
        self.data["runs"][section] = run
        self.save()

    def save(self) -> None:
        if self.name is None:
            return
        from benchmarks.tables import document

        FOLDER.mkdir(exist_ok=True)
        write(path_of(self.name), json.dumps(rounded(self.data), indent=1) + "\n")
        write(FOLDER / f"{self.name}.md", document(self.name, self.data))


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    """What was written under a name."""
    data: dict[str, Any] = json.loads(path_of(name).read_text())
    return data


def write(path: Path, text: str) -> None:
    """Replace a file at once: Ctrl-C leaves the old one or the new one."""
    beside = path.with_suffix(path.suffix + ".new")
    beside.write_text(text)
    os.replace(beside, path)


def rounded(value: Any) -> Any:
    """Numbers with five digits, which is more than was measured."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
