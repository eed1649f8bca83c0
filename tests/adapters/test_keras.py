"""The layers of fastdrop.keras, on each backend of Keras in a process of its own: Keras has one per process."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from support import ROOT, printed_by

pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="Keras is an optional dependency")

HERE = Path(__file__).parent
COMPILED = "basics or spatial_dropout_"  # those of Keras's tests that compile a training, which takes JAX a minute


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_the_layers_are_the_calls_and_pass_keras_s_own_tests(backend, tmp_path):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is an optional dependency")
    inherited = os.environ.get("PYTHONPATH")  # versions.py has another Keras there
    folders = [*([inherited] if inherited else []), str(ROOT), str(HERE.parent)]
    variables = {
        "KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(folders),
        "JAX_ENABLE_X64": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }  # fmt: skip
    chosen = ["-k", f"not ({COMPILED})"] if backend == "jax" else []
    last = printed_by(HERE / "keras_own_tests.py", *chosen, cwd=ROOT, **variables).splitlines()[-1]
    if last.endswith("comes without its tests"):
        return
    passed, calls = (int(word) for word in last.split() if word.isdigit())
    assert passed >= 16, "Keras's own tests were found"
    assert calls >= 5, "Keras's own tests reached the kernels"
