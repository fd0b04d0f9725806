"""Kernels on a real GPU: cubins loaded through CuPy."""

from __future__ import annotations

from typing import Any

from minigan_kernels.cuda.cubins import cubin
from minigan_kernels.cuda.device import Launch
from minigan_kernels.cuda.launch_error import LaunchError, failure
from minigan_kernels.cuda.sources import ARCHITECTURES, Source

WITHOUT_ASKING = 48 << 10  # bytes of shared memory that a kernel may use unless it asks for more


class CupyLoader:
    """Finds kernels for one GPU.

    Parameters
    ----------
    cupy : the module.
    capability : compute capability of the GPU, such as "90".
    """

    def __init__(self, cupy: Any, capability: str) -> None:
        self.cupy, self.architecture = cupy, architecture_for(capability)
        self._modules: dict[tuple[str, tuple[str, ...]], tuple[Any, dict[str, str]]] = {}

    def function(self, source: Source, instance: str) -> Launch:
        """Load a kernel, and compile it first if no cubin is kept."""
        key = source.file, source.together_with(instance)
        if key not in self._modules:
            code, names = cubin(source, instance, self.architecture)
            module = self.cupy.cuda.function.Module()
            try:
                module.load(code)
            except Exception as error:
                raise self._not_loaded(error, source) from error
            self._modules[key] = module, names
        module, names = self._modules[key]
        function = module.get_function(names[instance])
        allowed = WITHOUT_ASKING

        def launch(grid: Any, block: Any, args: tuple[Any, ...], shared: int) -> None:
            nonlocal allowed
            try:
                if shared > allowed:
                    driver = self.cupy.cuda.driver
                    attribute = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                    driver.funcSetAttribute(function.ptr, attribute, shared)
                    allowed = shared
                function(grid, block, args, shared)
            except Exception as error:
                what = source.file, instance, grid, block, args, shared
                raise failure(error, *what) from error

        return launch

    def _not_loaded(self, error: Exception, source: Source) -> Exception:
        text = f"the driver does not load {source.file}, compiled for {self.architecture}: {error}"
        if "OUT_OF_MEMORY" in str(error):
            return MemoryError(text)
        return LaunchError(f"{text}\n  fix: update the driver, or install minigan[cuda12]")


def architecture_for(capability: str) -> str:
    """The newest architecture that a GPU can run: sm_90a is for sm_90 alone.

    Raises
    ------
    ValueError
        for a GPU older than all that the kernels are compiled for.
    """
    if capability == "90":
        return "sm_90a"
    known = [a for a in ARCHITECTURES if a[3:].isdecimal() and int(a[3:]) <= int(capability)]
    if not known:
        raise ValueError(f"compute capability {capability}; the oldest is {ARCHITECTURES[0][3:]}")
    # Machine code runs on later minor versions of its architecture; for a new major version it
    # must be compiled anew, for just that one.
    newest = known[-1]
    return newest if newest[3:-1] == capability[:-1] else f"sm_{capability}"
