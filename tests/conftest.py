"""Settings of all tests.

Hypothesis measures time, which on a machine with something else to do says nothing about the code: its checks of time
are off. A test's input is the same in each run of the same code, so that a suite that was green stays green;
HYPOTHESIS_PROFILE=explore looks at other and more ones.
"""

import gc
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("default"), max_examples=50, derandomize=True)
settings.register_profile("explore", settings.get_profile("default"), max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects without garbage collections, which take a third of its time: what it makes stays until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
