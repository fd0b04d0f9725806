"""One file per checkpoint with everything in it, and the folder that holds the last of them.

checkpoints/step-000938.safetensors   networks, optimizers, averages, buffers; in its metadata the
                                      step, the configuration and the random counters
checkpoints/latest.json, best.json    which file is which, for people and other programs
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import CheckpointError, NumericError
from minigan.weights import load_file, read_header, save_file
from minigan.weights.atomic import write_json

Arrays = dict[str, npt.NDArray[Any]]

SCHEMA = 1  # raise it when the meaning of the state changes, and teach `_migrate` the old one
KEEP = 3
_TABLE_ROWS = 12


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds."""

    path: Path
    arrays: Arrays
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]], state: Mapping[str, Any]) -> None:
    """Write one checkpoint file. Raises NumericError if a weight is NaN or infinite."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NumericError(
                f"not saved: '{name}' holds NaN or infinity",
                where=str(path),
                why="the last optimizer step overflowed, usually because the learning rate is high",
                fix="resume from the last checkpoint with a smaller learning rate",
            )
    save_file(path, arrays, {"state": {**state, "schema": SCHEMA}})


def load(path: Path | str) -> Snapshot:
    """Read and verify one checkpoint file. Raises CheckpointError naming file and tensor."""
    path = Path(path)
    arrays, metadata = load_file(path, finite=True)
    return Snapshot(path, arrays, _migrate(path, metadata))


def load_state(path: Path | str) -> dict[str, Any]:
    """Read the state of a checkpoint (step, configuration, ...) without its arrays."""
    return _migrate(Path(path), read_header(path)[1])


def _migrate(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    state = metadata.get("state")
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError(
            f"{path} is no checkpoint of a training run",
            why="it is a safetensors file without minigan's training state",
        )
    if state.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} has checkpoint format {state.get('schema')}, this version reads {SCHEMA}",
            fix="update minigan",
        )
    return state


class Checkpoints:
    """The checkpoints of one run: saves, prunes, and finds the newest that is sound.

    Parameters
    ----------
    folder : made by the run folder.
    keep : how many of the latest stay; the best one always stays too.
    """

    def __init__(self, folder: Path, keep: int = KEEP) -> None:
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """All checkpoint files, newest first."""
        return sorted(self.folder.glob("step-*.safetensors"), key=_step_of, reverse=True)

    def save(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        state: Mapping[str, Any],
        score: float | None = None,
    ) -> Path:
        """Write a checkpoint of state["step"], then move the pointers, then drop old ones.

        A `score` (lower is better) that beats the one in best.json makes this the best.
        """
        path = self.folder / f"step-{state['step']:06d}.safetensors"
        save(path, arrays, state)
        entry: dict[str, Any] = {"file": path.name, "step": state["step"]}
        write_json(self.folder / "latest.json", entry)
        best = self._pointer("best")
        if score is not None and (best is None or score < best["score"]):
            best = {**entry, "score": score}
            write_json(self.folder / "best.json", best)
        kept = {p.name for p in self.paths()[: self.keep]} | ({best["file"]} if best else set())
        for old in self.paths():
            if old.name not in kept:
                old.unlink(missing_ok=True)
        return path

    def load(self, set_aside: bool = False) -> Snapshot:
        """Return the newest checkpoint that is sound.

        A damaged one is skipped with a warning that names it and the one used instead;
        `set_aside` also renames it, so that it no longer counts as a checkpoint.
        """
        damaged: list[tuple[Path, CheckpointError]] = []
        for path in self.paths():
            try:
                snapshot = load(path)
            except CheckpointError as error:
                damaged.append((path, error))
                continue
            for bad, reason in damaged:
                warnings.warn(f"{reason.what}; using {path.name} instead", stacklevel=2)
                if set_aside:
                    bad.rename(bad.with_name(bad.name + ".damaged"))
            return snapshot
        if damaged:
            raise CheckpointError(
                f"{self.folder} holds no sound checkpoint",
                why="; ".join(reason.what for _, reason in damaged),
                fix="start the run again",
            )
        raise CheckpointError(
            f"{self.folder} holds no checkpoint", fix="start the run again: it never reached one"
        )

    def best(self) -> Snapshot:
        """Return the checkpoint with the best score, or the newest if none was scored."""
        pointer = self._pointer("best")
        return self.load() if pointer is None else load(self.folder / pointer["file"])

    def _pointer(self, name: str) -> dict[str, Any] | None:
        try:
            entry = json.loads((self.folder / f"{name}.json").read_text())
            return {"file": str(Path(entry["file"]).name), "score": float(entry["score"])}
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _step_of(path: Path) -> int:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdigit() else -1


def check_fits(
    expected: Mapping[str, npt.NDArray[Any]], found: Mapping[str, npt.NDArray[Any]], source: str
) -> None:
    """Raise CheckpointError with a table unless both have the same names, shapes and dtypes."""
    rows = [("missing", name, str(expected[name].shape)) for name in expected if name not in found]
    rows += [("extra", name, str(found[name].shape)) for name in found if name not in expected]
    for name in expected:
        if name not in found:
            continue
        wanted, got = expected[name], found[name]
        if wanted.shape != got.shape or wanted.dtype != got.dtype:
            change = f"{got.dtype} {got.shape} in the file, {wanted.dtype} {wanted.shape} wanted"
            rows.append(("different", name, change))
    if not rows:
        return
    width = max(len(name) for _, name, _ in rows[:_TABLE_ROWS])
    table = [f"{kind:<9}  {name:<{width}}  {text}" for kind, name, text in rows[:_TABLE_ROWS]]
    if len(rows) > _TABLE_ROWS:
        table.append(f"... and {len(rows) - _TABLE_ROWS} more")
    raise CheckpointError(
        f"{source} belongs to another model\n    " + "\n    ".join(table),
        why=f"{len(rows)} of {len(expected)} entries do not fit",
        fix="use the configuration that the checkpoint was made with",
    )
