"""Kernels as the profiler sees them, on planes made by hand: there is no GPU here."""

from types import SimpleNamespace as Made

import jax
import jax.numpy as jnp

from benchmarks.tools import profile


def plane(name, **lines):
    return Made(
        name=name,
        lines=[
            Made(
                name=line.replace("_", " #"),
                events=[Made(name=n, duration_ns=t) for n, t in events],
            )
            for line, events in lines.items()
        ],
    )


def test_kernels_of_all_streams_count_and_copies_do_not():
    gpu = plane(
        "/device:GPU:0",
        Stream_1=[("loop_add", 2_000.0), ("MemcpyD2D", 9_000.0), ("reduce", 3_000.0)],
        Stream_2=[("loop_add", 2_500.0), ("Memset", 1_000.0)],
        XLA_Ops=[("loop_add", 2_000.0)],
    )
    seen = profile.read([plane("/host:CPU", Stream_1=[("loop_add", 1.0)]), gpu])
    assert seen.launched == 3
    assert abs(seen.seconds - 7.5e-6) < 1e-12
    assert [(name, count) for name, count, _ in seen.slowest] == [("loop_add", 2), ("reduce", 1)]


def test_a_program_is_traced_and_a_cpu_has_no_kernels():
    run = jax.jit(lambda x: x + 1)
    seen = profile.kernels(lambda: jax.block_until_ready(run(jnp.ones(3))))
    assert seen == profile.KernelProfile(0, 0.0, [])
