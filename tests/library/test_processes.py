"""Several processes that share the weights train as one."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.helpers import free_port
from tests.library import cluster

PROCESSES, DEVICES_EACH, LIMIT = 2, 2, 180


@pytest.mark.slow
@pytest.mark.works_with("jax.distributed", "two processes that share the weights train as one")
def test_two_processes_train_as_one(tmp_path):
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES_EACH}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    address = f"127.0.0.1:{free_port()}"
    results = [tmp_path / f"{i}.npz" for i in range(PROCESSES)]
    logs = [tmp_path / f"{i}.log" for i in range(PROCESSES)]
    children = []
    try:
        for i, (result, log) in enumerate(zip(results, logs, strict=True)):
            command = [sys.executable, cluster.__file__, address, str(PROCESSES), str(i), result]
            with log.open("w") as output:
                children.append(
                    subprocess.Popen(command, env=environment, stdout=output, stderr=output)
                )
        expected = cluster.train(jax.devices()[:1])  # while they start
        codes = [child.wait(timeout=LIMIT) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert codes == [0] * PROCESSES, "\n".join(log.read_text() for log in logs)
    for result in results:
        with np.load(result) as found:
            assert set(found) == set(expected)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, atol=1e-6, rtol=1e-6)
