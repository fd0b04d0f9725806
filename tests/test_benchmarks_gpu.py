"""The benchmark of a GPU runs, on the emulated one: every section, and what is written down."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_devices  # noqa: F401  makes the emulated device known

import minigan as mg
from benchmarks import (
    gpu,
    gpu_conformance,
    gpu_layers,
    gpu_ops,
    gpu_report,
    gpu_steps,
    gpu_timing,
    torchside,
)
from benchmarks.__main__ import parser
from benchmarks.gpu_report import document
from benchmarks.gpu_timing import Contender, Limits, at_most, compared
from benchmarks.op_list import ops
from benchmarks.steps import LossesDiffer, nets


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One round, results elsewhere, no PyTorch."""

    def once(clock: Any, sides: Sequence[Contender], sets: int = 1) -> dict[str, list[float]]:
        return {side.name: [clock.seconds(side.call, 0, 1, sets)] for side in sides}

    for module in (gpu_layers, gpu_ops, gpu_steps):
        monkeypatch.setattr(module, "race", once)
    monkeypatch.setattr(gpu, "FOLDER", tmp_path)
    monkeypatch.setattr(torchside, "torch", lambda: None)
    gpu._MEMORY.clear()


@pytest.fixture
def with_torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torchside, "torch", lambda: torch)
    return torch


def options(**changed: Any) -> Any:
    plain = {"device": "emulated", "quick": False, "save": "name", "only": None}
    return SimpleNamespace(**{**plain, "inside": None, "seconds": None, **changed})


def bench(section: str, **changed: Any) -> gpu.Bench:
    return gpu.Bench(options(**changed), section, 60)


def test_every_kernel_is_compared_with_its_twin() -> None:
    assert gpu_conformance.missing() == set()


@pytest.mark.parametrize("name", ["tanh", "norm: batch", "adam_step", "concat", "max_pool"])
def test_right_kernels_conform(name: str) -> None:
    found = gpu_conformance.entry(bench("").backend, name, small=True)
    assert not found["faults"] and found["error"]["float64"] < 1e-14


def test_a_wrong_kernel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "tanh": lambda k, a: k.exp(a(5)) if isinstance(k, gpu_conformance.Twin) else k.tanh(a(5))
    }
    monkeypatch.setattr(gpu_conformance, "CASES", wrong)
    assert gpu.measure(options(only="conformance", save=None)) == 1
    found = gpu.read(None)
    assert "WRONG float32: error" in gpu_conformance.line(found["conformance"]["tanh"])
    assert "Conformance: 1 cases, 1 wrong." in document(None, found)


def only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case per section."""
    first = next(iter(gpu_layers.layers(small=True)))
    monkeypatch.setattr(gpu_layers, "layers", lambda small: iter([first]))
    monkeypatch.setattr(gpu_layers, "DIRECTIONS", ("forward", "weight"))
    op = next(op for op in ops() if op.name.startswith("mse"))
    monkeypatch.setattr(gpu_ops, "ops", lambda: [op])
    monkeypatch.setattr(gpu_steps, "nets", lambda small=True: nets(small=True)[:1])
    monkeypatch.setattr(gpu_conformance, "CASES", {"tanh": gpu_conformance.CASES["tanh"]})


SECTIONS = "facts,conformance,layers,ops,steps,sanitizer,compile"


def test_all_sections_without_pytorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_one(monkeypatch)
    assert gpu.measure(options(only=SECTIONS)) == 0
    found = json.loads((tmp_path / "name.json").read_text())
    assert found["facts"]["torch"] == "not installed"
    assert len(found["layers"]) == 4 and len(found["ops"]) == 4 and len(found["steps"]) == 1
    (step,) = found["steps"].values()
    assert set(step["ms"]) == {"minigan", "minigan recorded"} and step["ours"] == "minigan recorded"
    assert step["losses"]["minigan"] == step["losses"]["minigan recorded"]
    assert step["gflop"] > 0 and step["floor_ms"] > 0 and "torch" in step["skipped"]
    assert set(found["skipped"]) == {"sanitizer", "compile"} and not found.get("failed")
    monkeypatch.setattr(gpu_report, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"a\n{gpu_report.BEGIN}\nold\n{gpu_report.END}\nb\n")
    assert gpu_report.rewrite_readme("name", found) == 0
    readme = (tmp_path / "README.md").read_text()
    assert "| dcgan28 w64 step | " in readme and "old" not in readme and readme.endswith("-->\nb\n")
    text = (tmp_path / "name.md").read_text()
    assert (
        text == document("name", found) and "dcgan28 w64, torch: PyTorch is not installed" in text
    )


@pytest.mark.torch
def test_all_sections_beside_pytorch(
    monkeypatch: pytest.MonkeyPatch, with_torch: Any, tmp_path: Path
) -> None:
    only_one(monkeypatch)
    assert gpu.measure(options(only=SECTIONS)) == 0
    found = json.loads((tmp_path / "name.json").read_text())
    for entry in (*found["layers"].values(), *found["steps"].values()):
        assert set(entry["ratios"]) == {"torch nchw", "torch channels_last"}
        assert set(entry["error"]) >= {entry["ours"], entry["best"]}
    assert all(e["error"]["torch nchw"] < 1e-6 for e in found["layers"].values())
    assert "its best" in (tmp_path / "name.md").read_text()


def test_a_step_with_other_losses_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    step = SimpleNamespace(net=SimpleNamespace(name="a"), exact={"D": 1.0}, losses={})
    with pytest.raises(LossesDiffer):
        gpu_steps.Both.check(step, "minigan", {"D": 1.02})  # type: ignore[arg-type]


# What survives ---------------------------------------------------------------------------------


def test_failures_and_late_entries_are_written_down() -> None:
    made = bench("layers")

    def fails() -> Any:
        raise ValueError("no")

    made.add("layers", "bad", fails)
    made.add("layers", "slow", lambda: time.sleep(5) or {}, 0.05)  # type: ignore[func-returns-value]
    made.end = 0
    made.add("layers", "late", dict)
    made.save()
    found = gpu.read("name")
    assert found["failed"]["layers"]["bad"] == "ValueError: no"
    assert "TimeoutError" in found["failed"]["layers"]["slow"]
    assert found["left out"] == {"layers": ["late"]} and "at work on" not in found
    text = document("name", found)
    assert "**Failed** layers bad: ValueError: no" in text and "No time for layers: late" in text


def test_a_gpu_that_serves_no_more_ends_the_process() -> None:
    def fatal() -> Any:
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access")

    with pytest.raises(SystemExit) as ended:
        bench("ops").add("ops", "bad", fatal)
    assert ended.value.code == gpu.DEAD and "bad" in gpu.read("name")["failed"]["ops"]


def test_a_section_goes_on_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one dies at an entry, the second ends because of its GPU, the third finishes."""

    def work() -> Iterator[int]:
        gpu.save("name", {"ops": {"a": {}}, "at work on": "b"})
        yield -11
        data = gpu.read("name")
        data["failed"]["ops"]["c"] = "no GPU"
        gpu.save("name", data)
        yield gpu.DEAD
        data = gpu.read("name")
        gpu.save("name", data | {"ops": data["ops"] | {"d": {}}})
        yield 0

    steps, commands = work(), []

    def run(command: list[str], timeout: float) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=next(steps))

    monkeypatch.setattr("benchmarks.gpu.subprocess.run", run)
    monkeypatch.setattr(gpu, "document", lambda name, data: "")
    gpu.in_processes(options(device="cuda", quick=True), "ops", 100)
    assert len(commands) == 3 and commands[0][2:6] == ["benchmarks", "gpu", "--inside", "ops"]
    parsed = parser().parse_args(commands[0][3:])
    assert parsed.save == "name" and parsed.quick and 90 < parsed.seconds <= 100
    found = gpu.read("name")
    assert set(found["ops"]) == {"a", "d"} and "status -11" in found["failed"]["ops"]["b"]


def test_what_is_done_is_not_done_again() -> None:
    entry: dict[str, Any] = {"error": {}, "faults": []}
    gpu.save("name", {"conformance": {"a": entry}, "failed": {"conformance": {"b": "no"}}})
    made, ran = bench("conformance"), []
    for name in ("a", "b", "c"):
        made.add("conformance", name, lambda name=name: ran.append(name) or entry)  # type: ignore
    assert ran == ["c"]


def test_limits_within_limits() -> None:
    with pytest.raises(TimeoutError, match=r"0\.3 s"), at_most(0.3):
        with at_most(60):
            pass
        time.sleep(5)
    with at_most(5):
        pass


def test_floors_and_ratios() -> None:
    limits = Limits(300e12, 3e12)
    assert limits.floor(3e12, 0) == pytest.approx(0.01)
    assert limits.floor(3e12, 0, "fp32") == pytest.approx(0.03)
    assert limits.floor(0, 3e12) == pytest.approx(1.0)
    found = compared({"minigan": [0.004], "minigan recorded": [0.002], "torch nchw": [0.006]})
    assert found["ours"] == "minigan recorded" and found["best"] == "torch nchw"
    assert found["ratios"]["torch nchw"] == pytest.approx(3.0)
    assert gpu_timing.sets_for(1e9) == 1


def test_without_a_gpu_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise mg.errors.ResourceError("no CuPy", fix="install it")

    monkeypatch.setattr(gpu, "load_cupy", missing)
    assert gpu.measure(options(device="cuda")) == 2
    assert "fix: install it" in capsys.readouterr().err


def test_the_time_is_shared_out() -> None:
    assert [sum(b[i] for b in gpu.BUDGETS.values()) for i in (0, 1)] == [25 * 60, 5 * 60]


def test_unknown_sections_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["gpu", "--only", "layers,opps"])
    assert "no section opps" in capsys.readouterr().err
