"""The command line of the benchmarks. Modules that compute are imported after it is parsed, since
they look at the environment that some of the options set.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = {"layers": 190, "ops": 75, "steps": 150, "memory": 75, "overhead": 45}
WHAT = {
    "layers": "convolution layers of GANs: forward, input and weight gradient",
    "ops": "norms, activations, resampling, pooling, losses, attention, optimizers",
    "steps": "whole training steps: DCGAN, CycleGAN, SPADE",
    "memory": "peak memory of those steps and working memory of the layers",
    "overhead": "tiny operations, import, compilation",
}
EPILOG = """
examples:
  python -m benchmarks layers --only cyc --seconds 60        just look
  python -m benchmarks layers --only "dc64.d3 N16 weight"    one case (--list shows the names)
  python -m benchmarks steps --only spade
  python -m benchmarks all --save my-machine                 everything, about ten minutes
  python -m benchmarks table my-machine                      README's table from those results

A ratio is PyTorch's time over minigan's, the median over pairs of neighbouring turns: above 1,
minigan is faster. PyTorch is measured in NCHW and in channels_last and the faster one counts. Both
use the same number of threads. benchmarks/README.md explains the rest.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    main = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure minigan against PyTorch, side by side in one process.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = _common()
    for name, what in WHAT.items():
        command = commands.add_parser(name, help=what, description=what, parents=[common])
        command.set_defaults(seconds=SECONDS[name])
    everything = commands.add_parser("all", help="all of these", parents=[common])
    everything.set_defaults(seconds=sum(SECONDS.values()))
    table = commands.add_parser("table", help="rewrite README's table from saved results")
    table.add_argument("name", help="of the results, as given to --save")
    gpu = commands.add_parser("gpu", help="all of it on an NVIDIA GPU beside PyTorch's CUDA")
    gpu.add_argument("--quick", action="store_true", help="5 minutes instead of 25")
    gpu.add_argument(
        "--only",
        metavar="SECTIONS",
        type=_sections,
        help="of facts,kernels,conformance,tests,sanitizer,layers,ops,steps,compile; others stay",
    )
    gpu.add_argument(
        "--save", metavar="NAME", help="of benchmarks/results/NAME.json and NAME.md (the GPU's)"
    )
    gpu.add_argument("--device", default="cuda", help="default: %(default)s")
    gpu.add_argument("--inside", help=argparse.SUPPRESS)  # one section, in a process of its own
    gpu.add_argument("--seconds", type=_positive, help=argparse.SUPPRESS)
    _add_quality(commands)
    gallery = commands.add_parser("gallery", help="train, measure and picture every GAN on MNIST")
    gallery.add_argument("--only", metavar="PRESETS", help="like dcgan,cgan")
    gallery.add_argument("--minutes", type=_positive, default=4.5, help="default: %(default)s")
    gallery.add_argument(
        "--runs", type=Path, default=Path("runs/gallery"), help="default: %(default)s"
    )
    gallery.add_argument(
        "--save", metavar="NAME", help="write benchmarks/results/NAME.json and NAME.md"
    )
    commands.add_parser("quiet", help="only check whether the machine is quiet")
    return main


def _add_quality(commands: Any) -> None:
    quality = commands.add_parser(
        "quality", help="FID of DCGAN beside PyTorch's: same weights, data, noise and budget"
    )
    add = quality.add_argument
    add("--data", default="mnist", metavar="NAME", help="default: %(default)s")
    add("--steps", type=_numbers, default="938,1876,2814", help="default: %(default)s")
    add("--seeds", type=_numbers, default="0,1,2", help="default: %(default)s")
    add("--images", type=int, default=10_000, help="that are measured (default: %(default)s)")
    add("--width", type=int, default=32, help="of both networks (default: %(default)s)")
    usual = "another option of minigan's; PyTorch keeps the usual ones"
    add("-o", dest="options", action="append", default=[], metavar="KEY=VALUE", help=usual)
    add("--only", choices=("minigan", "torch"), help="one engine")
    add("--threads", type=int, metavar="N", help="of both sides (default: all cores)")
    add("--save", metavar="NAME", help="write benchmarks/results/NAME.json and NAME.md")


def _common() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    add = options.add_argument
    add("--only", metavar="PATTERN", help="cases whose name contains this (or: this,or this)")
    add("--list", action="store_true", help="print the names of the cases and stop")
    add("--seconds", type=_positive, metavar="S", help="time for all of it (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="of both sides (default: all cores)")
    add("--simd", choices=("plain", "avx2", "avx512", "amx"), help="instructions of minigan")
    add("--torch-simd", choices=("avx2", "avx512"), help="instructions of PyTorch, likewise")
    add("--save", metavar="NAME", help="write benchmarks/results/NAME.json and NAME.md")
    add("--json", action="store_true", help="print the results as JSON (progress: stderr)")
    add("--anyway", action="store_true", help="measure although the machine is not quiet")
    return options


def _sections(text: str) -> str:
    from benchmarks.gpu import BUDGETS

    wrong = [name for name in text.split(",") if name not in BUDGETS]
    if wrong:
        raise argparse.ArgumentTypeError(f"no section {wrong[0]}; there are {', '.join(BUDGETS)}")
    return text


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time")
    return value


def _numbers(text: str) -> list[int]:
    """`938,1876` in ascending order."""
    return sorted({int(part) for part in text.split(",")})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    if options.command == "table":
        from benchmarks.readme import rewrite_readme

        return rewrite_readme(options.name)
    if options.command == "gpu":
        from benchmarks import gpu

        return gpu.measure(options)
    set_environment(options)
    if options.command == "gallery":
        from benchmarks import gallery

        return gallery.main(options)
    if options.command == "quality":
        from benchmarks import quality

        return quality.main(options)
    if options.command == "quiet":
        from benchmarks.machine import check, describe

        seen = check()
        print(describe(seen))
        print("\n".join(seen["noise"]) or "the machine is quiet")
        return int(bool(seen["noise"]))
    try:
        return measure(options)
    except KeyboardInterrupt:  # between two cases, or while the machine is checked
        _say("interrupted; what was measured is kept")
        return 130


def set_environment(options: argparse.Namespace) -> None:
    """What --threads, --simd and --torch-simd mean; they are read when modules are imported."""
    if getattr(options, "threads", None):
        os.environ["MINIGAN_THREADS"] = str(options.threads)
    if getattr(options, "simd", None):
        os.environ["MINIGAN_SIMD"] = options.simd
    if getattr(options, "torch_simd", None):
        os.environ["ONEDNN_MAX_CPU_ISA"] = {"avx2": "AVX2", "avx512": "AVX512_CORE"}[
            options.torch_simd
        ]
        os.environ["ATEN_CPU_CAPABILITY"] = options.torch_simd
        os.environ["MKL_ENABLE_INSTRUCTIONS"] = options.torch_simd.upper()


def measure(options: argparse.Namespace) -> int:
    """Check the machine, run the sections, check again, print the tables."""
    from benchmarks import machine
    from benchmarks.results import OtherMachine, Results
    from benchmarks.tables import document

    sections = list(WHAT) if options.command == "all" else [options.command]
    if options.list:
        print("\n".join(name for section in sections for name in _module(section).names()))
        return 0
    facts = machine.facts() | {"torch_simd": options.torch_simd}
    try:
        results = Results(options.save, facts)
    except OtherMachine as error:
        _say(f"{error}; choose another name")
        return 2
    _say(_introduction(facts))
    before = machine.check()
    _say(f"before: {machine.describe(before)}")
    if before["noise"] and not options.anyway:
        _say("not measured, the machine is not quiet: " + "; ".join(before["noise"]))
        _say("stop what else runs, or pass --anyway")
        return 2
    status, ran = 0, []
    share = options.seconds / sum(SECONDS[section] for section in sections)
    for section in sections:
        watch, start = machine.Watch(), datetime.datetime.now()
        _say(f"\n{section}: {WHAT[section]}")
        try:
            _module(section).measure(options, results, SECONDS[section] * share, _say)
        except KeyboardInterrupt:
            _say("interrupted; what was measured is kept")
            status = 130
        after = machine.check()
        noise = machine.verdict(before, after, watch.others())
        run = {
            "date": start.isoformat(" ", "minutes"),
            "seconds": round((datetime.datetime.now() - start).total_seconds()),
            "only": options.only,
            "before": before,
            "after": after,
            "others": watch.others(),
            "noise": noise,
            "failed": results.failed,
        }
        results.note_run(section, run)
        ran.append(section)
        _say(f"{section} took {run['seconds']} s; after: {machine.describe(after)}")
        for text in noise:
            _say(f"NOT QUIET {text}")
        before, status = after, status or int(bool(results.failed))
        results.failed = []
        if status == 130:
            break
    shown = {key: value for key, value in results.data.items() if key not in WHAT or key in ran}
    print(json.dumps(shown) if options.json else document(options.save, shown))
    return status


def _introduction(facts: dict[str, Any]) -> str:
    text = (
        f"{facts['processor']}, {facts['threads']} threads on both sides, "
        f"numpy {facts['numpy']}, numba {facts['numba']}, torch {facts['torch'] or 'not installed'}"
    )
    text += f"\nminigan computes with {facts['simd']} instructions"
    if os.environ.get("MINIGAN_SIMD"):
        text += " (MINIGAN_SIMD is set)"
    return text + (f", torch with {facts['torch_simd']}" if facts["torch_simd"] else "")


def _module(section: str) -> Any:
    from importlib import import_module

    return import_module(f"benchmarks.{section}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
