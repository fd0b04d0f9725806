"""The benchmarks: what is typed, what is counted, what is written, and that both sides agree."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigan as mg
import minigan.functional as F
from benchmarks import (
    cases,
    layers,
    machine,
    op_list,
    ops,
    ourside,
    overhead,
    peaks,
    readme,
    results,
    steps,
    tables,
    timing,
)
from benchmarks import memory as memory_section
from benchmarks.__main__ import main, parser
from benchmarks.counting import counting

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
LIMITS = peaks.Peaks(100.0, 50.0, ((1 << 20, 40.0), (1 << 28, 10.0)))
MACHINE = {"processor": "a processor", "threads": 2, "simd": "avx2", "numpy": "2", "numba": "0"}


@pytest.fixture(autouse=True)
def known_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not measure the machine."""
    monkeypatch.setattr(cases, "peaks", lambda: LIMITS)
    monkeypatch.setattr("benchmarks.counting.peaks", lambda: LIMITS)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.torchside.torch", lambda: None)


# The command line ------------------------------------------------------------------------------


def test_every_command_parses() -> None:
    for command in ("layers", "ops", "steps", "memory", "overhead", "all"):
        text = [command, "--only", "a,b", "--seconds", "9", "--threads", "2", "--simd", "avx2"]
        options = parser().parse_args([*text, "--save", "name", "--json", "--anyway"])
        assert (options.command, options.seconds, options.save) == (command, 9.0, "name")
    assert parser().parse_args(["all"]).seconds == pytest.approx(600, rel=0.2)  # ten minutes
    assert parser().parse_args(["table", "here"]).name == "here"


@pytest.mark.parametrize(
    "text", ["", "nothing", "layers --seconds 0", "layers --simd sse", "table"]
)
def test_wrong_commands_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(text.split())
    assert stop.value.code == 2 and "usage" in capsys.readouterr().err


def test_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("layers", "overhead", "ratio", "examples", "--only"))


def test_list_names_all_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["all", "--list"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(names) == len(set(names)) > 300
    assert {"cyc.res32 N1 weight", "adam 3M", "spade128", "compile cold"} <= set(names)
    assert len([n for n in names if n.split()[-1] in layers.DIRECTIONS and "." in n]) == 206


def test_words_choose_cases() -> None:
    assert cases.words(None, "x") and cases.words("", "x")
    assert cases.words("no, d2 N1", "cyc.d2 N1 input") and not cases.words("d3", "cyc.d2 N1 input")


def test_a_noisy_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = dict(gflops=1.0, variation=0.5, disturbed=0.0, others=0.0, load=0.0, noise=["it varies"])
    monkeypatch.setattr(machine, "check", lambda: seen)
    assert main(["overhead", "--only", "no such case"]) == 2
    assert "not quiet: it varies" in capsys.readouterr().err
    assert main(["overhead", "--only", "no such case", "--anyway"]) == 0
    assert "NOT QUIET before: it varies" in capsys.readouterr().err


def test_an_interrupt_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "check", interrupt)
    assert main(["overhead"]) == 130
    quiet = dict(gflops=1.0, variation=0.0, disturbed=0.0, others=0.0, load=0.0, noise=[])
    monkeypatch.setattr(machine, "check", lambda: quiet)
    monkeypatch.setattr(overhead, "measure", interrupt)
    assert main(["overhead"]) == 130
    assert capsys.readouterr().err.count("what was measured is kept") == 2


# Quiet -----------------------------------------------------------------------------------------


def look(monkeypatch: pytest.MonkeyPatch, samples: list[float], others: float) -> dict[str, Any]:
    monkeypatch.setattr(machine, "spin", lambda tasks: lambda: 1.0)
    monkeypatch.setattr(machine, "_spin", lambda work, seconds: samples)
    monkeypatch.setattr(machine.Watch, "others", lambda self: others)
    return machine.check()


def test_quiet_and_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(monkeypatch, [100.0] * 9 + [99.0], 0.01)["noise"] == []
    assert "varies" in look(monkeypatch, [100.0, 80.0] * 5, 0.0)["noise"][0]
    assert "slow" in look(monkeypatch, [100.0] * 8 + [50.0] * 2, 0.0)["noise"][0]
    assert "others use 30%" in look(monkeypatch, [100.0] * 9, 0.3)["noise"][0]
    assert look(monkeypatch, [100.0] * 9, 0.3)["gflops"] == 100.0


def test_verdict_of_a_run() -> None:
    def seen(gflops: float, *noise: str) -> dict[str, Any]:
        return {"gflops": gflops, "noise": list(noise)}

    assert machine.verdict(seen(100), seen(98), 0.0) == []
    assert machine.verdict(seen(100), seen(98), None) == []
    found = machine.verdict(seen(100, "a"), seen(80, "b"), 0.5)
    assert found[:2] == ["before: a", "after: b"] and "50%" in found[2] and "80" in found[3]


def test_own_work_is_not_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of work of all cores, of which this process did one and a half."""
    busy, own, now = iter([10.0, 12.0]), iter([3.0, 4.5]), iter([0.0, 1.0])
    monkeypatch.setattr(machine, "_busy", lambda: next(busy))
    monkeypatch.setattr(machine, "_own", lambda: next(own))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    assert machine.Watch().others() == pytest.approx(0.25)


# Timing ----------------------------------------------------------------------------------------


class Clock:
    """Time that passes only in calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def side(self, name: str, seconds: float, preparing: float = 0.0) -> timing.Side:
        def spend(amount: float) -> None:
            self.now += amount

        return timing.Side(
            name, lambda _: spend(seconds), lambda: spend(preparing), lambda: spend(1e-3)
        )


def test_alternating_times_only_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    sides = [clock.side("minigan", 0.010, preparing=0.5), clock.side("torch nchw", 0.030)]
    times = timing.alternate(sides, seconds=0.0)
    assert len(times["minigan"]) == len(times["torch nchw"]) == 3
    found = timing.versus(times)
    assert found["ms"]["minigan"]["median"] == pytest.approx(10)
    assert found["ratio"]["median"] == pytest.approx(3) and found["best"] == "torch nchw"


def test_the_faster_torch_counts_and_the_slower_one_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    lengths = {"minigan": 0.4, "torch nchw": 0.5, "torch channels_last": 0.3}
    sides = [clock.side(name, seconds) for name, seconds in lengths.items()]
    times = timing.alternate(sides, seconds=1e9, most=8)
    assert [len(t) for t in times.values()] == [8, timing.RACE, 8]
    found = timing.versus(times)
    assert found["best"] == "torch channels_last"
    assert found["ratio"]["median"] == pytest.approx(0.75)


def test_ratio_is_the_median_of_pairs() -> None:
    found = timing.versus({"minigan": [1.0, 2.0, 4.0], "torch nchw": [2.0, 8.0, 4.0]})
    assert found["ratio"]["median"] == 2.0 and found["ms"]["torch nchw"]["median"] == 4000.0
    assert timing.geometric_mean([2.0, 0.5]) == pytest.approx(1)
    assert timing.quartiles([3.0])["median"] == 3.0


def test_errors_are_the_ones_defined() -> None:
    exact = np.array([3.0, 4.0])
    found = cases.errors(np.array([3.0, 4.5]), exact)
    assert found["l2"] == pytest.approx(0.1) and found["max"] == pytest.approx(1.0)


def test_floors() -> None:
    assert LIMITS.floor(1e9, 0) == pytest.approx(0.01)
    assert LIMITS.floor(0, 1 << 20) == pytest.approx((1 << 20) / 40e9)
    assert LIMITS.gbytes(1) == 40 and LIMITS.gbytes(1e12) == 10 and 10 < LIMITS.gbytes(2e7) < 40


# What is measured ------------------------------------------------------------------------------

SMALL = [
    layers.Layer("a.conv N2", False, 2, 3, 9, 10, 3, 2, 1),
    layers.Layer("a.up N2", True, 2, 10, 4, 3, 3, 2, 1, 1),
    layers.Layer("a.odd N1", False, 1, 5, 8, 4, 4, 3, 0),
]


@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.name)
@pytest.mark.parametrize("direction", layers.DIRECTIONS)
@pytest.mark.usefixtures("without_torch")
def test_a_layer_is_measured_without_torch(layer: layers.Layer, direction: str) -> None:
    work = layers.work(layer, direction)
    case = cases.Case("x", "a", lambda: work, layer.flops, layer.nbytes)
    entry = cases.measure(case, 0.0)
    assert entry["error"]["minigan"]["l2"] < 2e-6 and "ratio" not in entry
    assert entry["reached"]["minigan"] > 0 and entry["algorithm"]
    assert "minigan" in cases.line("x", entry)


@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.name)
def test_arithmetic_of_a_layer(layer: layers.Layer) -> None:
    """Counted by hand: every output (of the convolution that it is) meets k k inputs."""
    given = layers.arrays(layer)
    y = layers.ours(layer, "forward")(**given)
    assert y.shape == given["g"].shape
    small = given["x"] if layer.transposed else y
    assert layer.flops == 2 * small.size * given["w"][0].size
    assert layer.nbytes == 4 * sum(a.size for a in given.values())


def test_list_of_layers() -> None:
    found = {layer.name: layer for layer in layers.layers()}
    assert len(found) == 70
    batches = {(layer.family, layer.batch) for layer in found.values()}
    one_and_four = {(family, n) for family in ("cyc", "spade", "sty", "p1") for n in (1, 4)}
    assert batches == one_and_four | {("mnist", 64), ("mnist", 128), ("dc64", 16), ("dc64", 64)}
    assert found["cyc.res32 N1"].out == found["cyc.u1 N1"].size == 32
    assert found["cyc.u2 N1"].out == 128 and found["mnist.g1 N64"].out == 7
    assert found["dc64.g5 N16"].out == 64 and found["dc64.d5 N16"].out == 1


@pytest.mark.usefixtures("without_torch")
def test_operations_run_in_both_precisions() -> None:
    """The smallest of each family; the exact side is float64."""
    seen = set()
    for op in sorted(op_list.ops(), key=lambda op: np.prod(op.shapes[0])):
        if op.family in seen:
            continue
        seen.add(op.family)
        for backward in (False, True):
            work = ops.work(op, backward)
            (side,) = work.sides
            assert work.exact is not None and work.exact().dtype == np.float64
            found = work.taken(side.call(side.prepare()))
            assert cases.errors(found, work.exact())["l2"] < 2e-6, op.name
    assert {"norm+act", "activation", "resampling", "loss", "attention", "linear"} <= seen


def test_the_dcgan_step_counts_what_it_computes() -> None:
    """By hand, products of width 2, two images, 28 pixels: see the docstring of DCGAN."""
    net = next(n for n in steps.nets(small=True) if n.name == "dcgan28 w64")
    game, batch = net.ours(), net.batch(np.random.default_rng(0))
    n, w = len(batch["images"]), 4
    g = [n * 100 * 49 * 2 * w, n * 49 * 2 * w * 16 * w, n * 196 * w * 16]
    d = [n * 196 * 16 * w, n * 49 * 16 * w * 2 * w, n * 49 * 2 * w]
    d_turn = sum(d) * 2 + 2 * (sum(d) + sum(d[1:]))  # forward; by weight, by data
    g_turn = 2 * sum(d) + sum(g) + sum(g[1:])  # D forward and to its input; G by weight, by data
    with counting() as count:
        game.step(batch)
    assert count.flops == 2 * (sum(g) + d_turn + g_turn)
    assert count.floor > 0 and count.nbytes > 0


def test_counting_knows_views_and_products() -> None:
    a, b = mg.tensor(np.ones((2, 3), np.float32)), mg.tensor(np.ones((3, 4), np.float32))
    with counting() as count:
        a.reshape(3, 2)
        assert count.nbytes == 0
        F.matmul(a, b)
    assert count.flops == 2 * 2 * 3 * 4 and count.nbytes == 4 * (6 + 12 + 8)


@pytest.mark.usefixtures("without_torch")
def test_all_steps_run_without_torch() -> None:
    for net in steps.nets(small=True):
        if net.name != "dcgan28 w32":
            work = steps.work(net)
            assert len(work.sides) == 1 and all(map(np.isfinite, work.extra["losses"].values()))


def test_different_losses_are_an_error() -> None:
    assert steps.compare("x", {"G": 1.0}, {"G": 1.00001}) < 2e-5
    with pytest.raises(steps.LossesDiffer):
        steps.compare("x", {"G": 1.0}, {"G": 1.01})
    with pytest.raises(steps.LossesDiffer):
        steps.compare("x", {"G": float("nan")}, {"G": 1.0})


def test_the_algorithm_is_what_ran() -> None:
    with ourside.kernels_seen() as seen:
        ourside.wake()
    assert list(seen) == ["ourside"]
    with ourside.kernels_seen() as seen:
        pass
    assert not seen


def test_a_side_that_computes_something_else_is_an_error() -> None:
    def side(name: str, value: float) -> timing.Side:
        return timing.Side(name, lambda _: np.full(3, value))

    work = cases.Work([side("minigan", 1.0), side("torch nchw", 1.01)], lambda: np.ones(3))
    with pytest.raises(cases.DifferentResults, match=r"torch nchw is off by 1\.0e-02"):
        cases.measure(cases.Case("x", "f", lambda: work, 1, 1), 0.0)


def test_failing_cases_do_not_end_the_run() -> None:
    def broken() -> cases.Work:
        raise ValueError("broken")

    good = cases.Case("good", "f", lambda: cases.Work([timing.Side("minigan", lambda _: 1)]), 1, 1)
    found = results.Results(None, MACHINE)
    said: list[str] = []
    both = [cases.Case("bad", "f", broken, 1, 1), good]
    cases.measure_section("layers", both, SimpleNamespace(only=None), found, 0.0, said.append)
    assert list(found.data["layers"]) == ["good"]
    assert "FAILED" in said[0] and found.failed == ["bad: ValueError: broken"]


# What is written -------------------------------------------------------------------------------


def entry(ours: float, theirs: float, **labels: Any) -> dict[str, Any]:
    times = {"minigan": [ours / 1e3] * 3, "torch nchw": [theirs / 1e3] * 3}
    both = {"minigan": {"l2": 1e-7, "max": 1e-6}, "torch nchw": {"l2": 2e-7, "max": 2e-6}}
    rest = {"floor_ms": 0.5, "gflop": 1.0, "mbyte": 2.0, "date": "2026-01-02", "error": both}
    reached = {"minigan": 0.5 / ours, "torch nchw": 0.5 / theirs}
    return timing.versus(times) | rest | {"reached": reached} | labels


def filled() -> dict[str, Any]:
    """Results with something in every section."""
    found = results.Results(None, MACHINE)
    for direction, ours in (("forward", 1.0), ("input", 4.0), ("weight", 2.2)):
        found.add("layers", f"a {direction}", entry(ours, 2.0, family="a", direction=direction))
    found.add("ops", "relu forward", entry(1.0, 3.0, family="norm+act", direction="forward"))
    step = entry(10.0, 15.0, family="s", adam="fused", difference=1e-6)
    found.add("steps", "cyclegan128", step)
    detail = {s: {"peak_mb": mb, "weights_and_adam_mb": 1.0, "rest_mb": mb - 1}
              for s, mb in (("minigan", 10.0), ("torch nchw", 12.0))}  # fmt: skip
    peak = {"step": {side: d["peak_mb"] for side, d in detail.items()}}
    memory_entry = {"family": "step", "mb": peak, "detail": detail, "date": "2026-01-02"}
    found.add("memory", "step cyclegan128", memory_entry)
    space = {d: {"minigan": 1.0, "torch nchw": 2.0} for d in layers.DIRECTIONS}
    found.add("memory", "workspace a", {"family": "workspace", "mb": space, "date": "2026-01-02"})
    cost = {"minigan": 5.0, "torch": 6.0, "ratio": 1.2, "unit": "us", "date": "2026-01-02"}
    found.add("overhead", "tiny operation", cost | {"family": "op_overhead"})
    found.note_run("layers", {"date": "today", "seconds": 1, "noise": ["it was loud"]})
    return found.data


def test_tables_hold_the_figures() -> None:
    text = tables.document("here", filled())
    row = next(line for line in text.splitlines() if line.startswith("| all | 3 "))
    assert row == "| all | 3 | 2.00 | 0.50 | 0.91 | 0.97 | 0.50 | 2 | 1 |"
    assert "**Not quiet**: it was loud" in text and "1.50 (1.50-1.50)" in text
    for line in text.splitlines():
        if line.startswith("| a forward"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert cells[:5] == ["a forward", "1", "2", "nchw", "2.00 (2.00-2.00)"]
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert min(widths) >= 4 and "nan" not in text


@pytest.mark.usefixtures("without_torch")
def test_tables_without_torch() -> None:
    alone = timing.versus({"minigan": [1e-3]}) | {"reached": {"minigan": 0.5}, "floor_ms": 0.5}
    alone |= {"family": "a", "direction": "forward", "date": "d", "gflop": 1.0, "mbyte": 1.0}
    data = results.Results(None, MACHINE).data
    data |= {"layers": {"a forward": alone}, "steps": {"dcgan64": alone}}
    assert "| a forward | 1 | - |" in tables.document(None, data)
    assert "| DCGAN step, 64 px, batch 16, 1024 maps | 1 ms | - | - |" in readme.short("n", data)


def test_readme_is_rewritten_between_the_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    paths = {tmp_path / "A.md": "short", tmp_path / "B.md": "floors"}
    for path in paths:
        path.write_text(text)
    monkeypatch.setattr(readme, "READMES", paths)
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(readme, "FOLDER", tmp_path)
    results.write(tmp_path / "here.json", json.dumps(filled()))
    assert main(["table", "here"]) == 0 and main(["table", "here"]) == 0
    short, floors = (path.read_text() for path in paths)
    for made in (short, floors):
        assert made.startswith("before\n") and made.endswith("\nafter\n") and "old" not in made
        assert made.count(readme.BEGIN) == 1 and "a processor" in made and "2026-01-02" in made
    assert "| CycleGAN step, 128 px, batch 1 | 10 ms | 15 ms | 1.50 |" in short
    assert "| peak memory, CycleGAN step, 128 px, batch 1 | 10 MB | 12 MB | 1.20 |" in short
    capsys.readouterr()
    assert main(["table", "elsewhere"]) == 2 and "known: here" in capsys.readouterr().err
    results.write(tmp_path / "old.json", "{}")
    assert main(["table", "old"]) == 2


def test_the_readmes_have_their_markers() -> None:
    for path in readme.READMES:
        text = path.read_text()
        assert text.count(readme.BEGIN) == text.count(readme.END) == 1
        assert readme.rewrite(text, ["x"]) != text
    with pytest.raises(ValueError, match="no lines"):
        readme.rewrite("text", [])


def test_results_are_kept_and_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    first = results.Results("here", MACHINE)
    first.add("layers", "a forward", entry(1.0, 2.0, family="a", direction="forward"))
    first.add("layers", "b forward", entry(1.0, 2.0, family="a", direction="forward"))
    second = results.Results("here", MACHINE)
    second.add("layers", "b forward", entry(1.0, 3.0, family="a", direction="forward"))
    found = results.read("here")["layers"]
    assert [found[k]["ratio"]["median"] for k in ("a forward", "b forward")] == [2.0, 3.0]
    assert "| b forward | 1 | 3 |" in (tmp_path / "here.md").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here.json", "here.md"]
    with pytest.raises(results.OtherMachine):
        results.Results("here", MACHINE | {"threads": 4})


def test_overhead_takes_the_programs_figures() -> None:
    rows = {"minigan": 5.0, "torch": 6.0, "ratio": 0.8, "target": 0.9}
    plain, graph = overhead.entries("op_overhead", {"plain": rows, "create_graph": rows})
    assert plain["ratio"] == pytest.approx(1.2) and graph["unit"] == "us"
    assert overhead.entries("import_time", {"minigan": 0.05})[0] == {"minigan": 0.05, "unit": "s"}


def test_peak_memory_sees_an_allocation() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux")
    memory_section.settle()
    memory_section.new_peak()
    before = memory_section.resident()
    np.ones(10_000_000)
    assert 70e6 < memory_section.peak() - before < 100e6
    memory_section.new_peak()
    assert memory_section.peak() - before < 40e6


# Beside PyTorch --------------------------------------------------------------------------------


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.name)
@pytest.mark.parametrize("direction", layers.DIRECTIONS)
def test_both_sides_of_a_layer_agree(layer: layers.Layer, direction: str) -> None:
    work = layers.work(layer, direction)
    entry = cases.measure(cases.Case("x", "a", lambda: work, layer.flops, layer.nbytes), 0.0)
    assert len(entry["error"]) == 3 and "ratio" in entry
    assert all(found["l2"] < 2e-6 for found in entry["error"].values())


@needs_torch
@pytest.mark.torch
def test_both_sides_of_the_steps_agree() -> None:
    """Same parameters, same losses; and still after two more steps of the same noise."""
    for net in steps.nets(small=True):
        work = steps.work(net)
        assert len(work.sides) == 3 and work.extra["difference"] < 1e-5
        for side in work.sides:
            losses = side.call(None)
            assert all(map(np.isfinite, losses.values())), net.name


@needs_torch
@pytest.mark.torch
def test_both_sides_of_the_operations_agree() -> None:
    for op in op_list.ops():
        if op.flops > 1e9:
            continue
        for backward in (False, True):
            work = ops.work(op, backward)
            assert work.exact is not None
            exact = work.exact()
            for side in work.sides:
                found = work.taken(side.call(side.prepare()))
                assert cases.errors(found, exact)["l2"] < 5e-6, (op.name, side.name)
