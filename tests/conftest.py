"""Common ground of all tests: import path, hypothesis profiles, no network, fixed seeds."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from minigan_kernels.precision import PRECISION

sys.path.insert(0, str(Path(__file__).parent))

# "ci" repeats itself exactly; "nightly" looks for new counterexamples. Choose with
# HYPOTHESIS_PROFILE or pytest's --hypothesis-profile.
_COMMON: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("ci", derandomize=True, max_examples=30, database=None, **_COMMON)
settings.register_profile("nightly", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis report failures where warnings are errors: it imports libcst for that."""
    config.addinivalue_line("filterwarnings", "ignore:mypy_extensions:DeprecationWarning")


def _is_local(address: Any) -> bool:
    """Whether a socket address stays on this machine."""
    if isinstance(address, str | bytes):  # a Unix socket
        return True
    return address[0] in ("127.0.0.1", "::1", "localhost", "")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Connections that would leave this machine raise: no test may depend on a network."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex", "sendto"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, *args: Any, _original: Any = original) -> Any:
            address = args[-1]
            if not _is_local(address):
                raise PermissionError(f"a test tried to reach {address!r}; tests use no network")
            return _original(self, *args)

        patch.setattr(socket.socket, name, guarded)
    resolve = socket.getaddrinfo

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and not _is_local((host,)):
            raise PermissionError(f"a test tried to look up {host!r}; tests use no network")
        return resolve(host, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", guarded_resolve)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same random state."""
    import minigan as mg

    mg.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator for the values of one test."""
    return np.random.default_rng(20240501)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Memory must come free by reference counts alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def accurate() -> Iterator[None]:
    """Where nothing else is said: a GPU's convolutions would use TF32."""
    token = PRECISION.set("fp32")
    yield
    PRECISION.reset(token)
