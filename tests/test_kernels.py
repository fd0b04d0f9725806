"""The kernel packages: one signature table, and names that are kernels, not files."""

from __future__ import annotations

import inspect
import platform
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "kernels" / "README.md").read_text()
TABLE = {
    name: [p.strip() for p in parameters.split(",")]
    for name, parameters in re.findall(r"^\| `(\w+)\((.*?)\)` \|", README, re.M)
}


@pytest.mark.parametrize("package", ["reference", "cpu"])
def test_the_table_of_the_readme_is_the_code(package: str) -> None:
    kernels = import_module(f"minigan_kernels.{package}")
    assert list(TABLE) == list(kernels.FAMILIES), "the table in kernels/README.md and FAMILIES"
    for name, parameters in TABLE.items():
        found = inspect.signature(getattr(kernels, name)).parameters.values()
        # A definition may have options beyond those that the kernels need.
        extra = [
            p for p in list(found)[len(parameters) :] if package == "cpu" or p.default is p.empty
        ]
        assert [p.name for p in found][: len(parameters)] == parameters and not extra, name


def test_the_gpu_has_the_same_kernels() -> None:
    """With the same parameters behind the device; it draws random numbers as well."""
    cuda = import_module("minigan_kernels.cuda")
    assert set(TABLE) <= set(cuda.FAMILIES)
    assert set(cuda.FAMILIES) - set(TABLE) == {"philox_uniform", "philox_normal"}
    for name, parameters in TABLE.items():
        found = list(inspect.signature(cuda.function(name)).parameters)
        assert found == ["device", *parameters], name


def test_the_code_in_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Its assertions hold: four ways of transposed convolution give the same numbers."""
    code = "".join(re.findall(r"^```python\n(.*?)^```", README, re.M | re.S))
    assert code.count("assert") >= 4
    exec(compile(code, "kernels/README.md", "exec"), {})
    assert re.fullmatch(r"conv .* ms, the matrix product alone .* ms\n", capsys.readouterr().out)


@pytest.mark.parametrize("package", ["reference", "cpu"])
@pytest.mark.parametrize(
    "first",
    [
        "",
        "from minigan_kernels.{package}.conv import conv_transpose",
        "import minigan_kernels.{package}.norm",
    ],
)
def test_a_kernel_named_like_its_file_is_the_kernel(package: str, first: str) -> None:
    """In every order of imports: Python would otherwise put the module conv in its place."""
    script = f"""
import sys
import minigan_kernels.{package} as kernels
assert "numba" not in sys.modules
{first.format(package=package)}
assert callable(kernels.conv) and callable(kernels.conv_transpose) and callable(kernels.norm)
from minigan_kernels.{package} import conv
assert callable(conv)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_an_unknown_kernel_is_named_with_those_that_exist() -> None:
    with pytest.raises(AttributeError, match="cpu has no kernel 'cnov'; it has conv, "):
        import_module("minigan_kernels.cpu").cnov  # noqa: B018


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_freed_memory_is_used_again() -> None:
    """Arrays of megabytes come and go without page faults once the CPU kernels are loaded."""
    code = """
import resource
import numpy as np
import minigan_kernels.cpu
for _ in range(20):
    arrays = [np.ones(500_000) for _ in range(4)]
    del arrays
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    arrays = [np.ones(500_000) for _ in range(4)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # 80 arrays of 976 pages: about 78,000 without the setting
