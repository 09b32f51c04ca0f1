"""Kernels are tested wherever they were built; an installed package must have them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import pytest

from greenasr.runtime.kernels import native


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    if not native.available():
        try:
            distribution("greenasr")
        except PackageNotFoundError:
            pytest.skip("greenasr is not installed and its extension not built in place")
        pytest.fail("greenasr is installed without its compiled kernels")
    isa, threads = native.isa(), native.threads()
    yield
    native.use_isa(isa)
    native.set_threads(threads)
