"""Compile every kernel for every architecture, with no GPU and no driver, and look at the result.

    python -m minigan_kernels.cuda.check            # compare with lock.json
    python -m minigan_kernels.cuda.check --write    # accept what is found

Checked for each instance: that it compiles, that registers do not spill to memory beyond what
lock.json records, that registers and size did not grow unnoticed, and that the machine instructions
it exists for (`Source.contains`) are there (needs the wheel `nvidia-cuda-nvdisasm`).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from minigan_kernels.cuda import FAMILIES, nvrtc
from minigan_kernels.cuda.sources import ARCHITECTURES, HERE, Source

LOCK = HERE / "lock.json"
GROWTH = 8  # registers that an instance may gain unnoticed: compilers differ a little
Facts = dict[str, int]  # registers, spilled bytes, shared bytes

_KERNEL = re.compile(
    r"Compiling entry function '(\w+)'.*?\n(.*?Used \d+ registers[^\n]*)", re.DOTALL
)


def sources() -> list[Source]:
    """All sources of all families."""
    modules = dict.fromkeys(FAMILIES.values())
    return [s for m in modules for s in import_module(f"minigan_kernels.cuda.{m}").SOURCES]


def facts(compiled: nvrtc.Compiled) -> dict[str, Facts]:
    """Instance -> what ptxas says about it."""
    found = {}
    for mangled, text in _KERNEL.findall(compiled.log):
        shared = re.search(r"(\d+) bytes smem", text)
        found[mangled] = {
            "registers": int(re.findall(r"Used (\d+) registers", text)[0]),
            "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", text))),
            "shared": int(shared[1]) if shared else 0,
        }
    return {name: found[mangled] for name, mangled in compiled.names.items()}


def instructions(cubin: bytes) -> dict[str, set[str]] | None:
    """Kernel -> names of its machine instructions; None without a disassembler."""
    wheels = Path(sysconfig.get_path("purelib")) / "nvidia"
    tool = shutil.which("nvdisasm") or next((str(p) for p in wheels.glob("cu*/bin/nvdisasm")), None)
    if tool is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True)
    parts = re.split(r"(?m)^\s*\.section\s+\.text\.(\w+).*$", text.stdout)
    mnemonic = re.compile(r"(?m)^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9_]*)")
    return {k: set(mnemonic.findall(t)) for k, t in zip(parts[1::2], parts[2::2], strict=True)}


def compile_all(architectures: tuple[str, ...]) -> Iterator[tuple[str, str, Facts, list[str]]]:
    """(architecture, "file: instance", facts, faults) of every instance."""
    for source in sources():
        groups = dict.fromkeys(map(source.together_with, source.instances))
        for architecture in architectures:
            if architecture not in source.architectures:
                continue
            for group in groups:
                made = nvrtc.compile_source(source.text, architecture, group)
                code = instructions(made.cubin)
                for name, found in facts(made).items():
                    used = None if code is None else code[made.names[name]]
                    missing = [i for i in source.contains if used is not None and i not in used]
                    faults = [f"no {i} in its machine code" for i in missing]
                    if "C7510" in made.log:
                        faults.append("its wgmma are serialised")
                    yield architecture, f"{source.file}: {name}", found, faults


def compare(name: str, found: Facts, locked: Facts | None) -> list[str]:
    """What is worse than in the lock."""
    if locked is None:
        return ["not in lock.json: run with --write"]
    faults = []
    if found["spilled"] > locked["spilled"]:
        faults.append(f"spills {found['spilled']} bytes, {locked['spilled']} before")
    if found["registers"] > locked["registers"] + GROWTH:
        faults.append(f"{found['registers']} registers, {locked['registers']} before")
    if found["shared"] != locked["shared"]:
        faults.append(f"{found['shared']} bytes of shared memory, {locked['shared']} before")
    return faults


def main(arguments: list[str] | None = None) -> int:
    """Check or write the lock; the exit status is the number of faults, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="write lock.json")
    parser.add_argument("--arch", nargs="*", default=ARCHITECTURES)
    options = parser.parse_args(arguments)
    lock = json.loads(LOCK.read_text()) if LOCK.exists() else {}
    new: dict[str, dict[str, Facts]] = {}
    bad = 0
    for architecture, name, found, faults in compile_all(tuple(options.arch)):
        new.setdefault(architecture, {})[name] = found
        if not options.write:
            faults += compare(name, found, lock.get(architecture, {}).get(name))
        bad += len(faults)
        values = f"{found['registers']:4d} registers {found['spilled']:4d} spilled"
        print(f"{architecture:7s} {name:60s} {values}", *faults, sep="  ")
    if options.write:
        LOCK.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
    gone = [n for a in options.arch for n in lock.get(a, {}) if n not in new.get(a, {})]
    if gone and not options.write:
        print("in lock.json but gone:", *gone)
    return 1 if bad or (gone and not options.write) else 0


if __name__ == "__main__":
    sys.exit(main())
