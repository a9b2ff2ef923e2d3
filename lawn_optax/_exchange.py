"""One exchange between devices for all sums of a sweep.

On a mesh, XLA for GPUs and TPUs combines the exchanges of a program; XLA for CPUs makes one per sum
unless the sums stand in one array. That array makes every leaf's kernels different ones, which
triples the time to compile, so it is made only in programs of several devices. How many there are
is known where a program is lowered, hence a primitive: it returns its operands.
"""

import collections

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def together(numbers: list[jax.Array]) -> list[jax.Array]:
    """Return numbers as they are, complete on every device after one exchange per type."""
    return _together.bind(*numbers)


def as_one_array(*numbers: jax.Array) -> list[jax.Array]:
    """Return numbers taken from one array per type, which XLA does not see through."""
    alike = collections.defaultdict(list)
    for i, x in enumerate(numbers):
        alike[x.dtype, x.shape].append(i)  # Under `vmap` some have an axis more than others.
    result = list(numbers)
    for indices in alike.values():
        array = jax.lax.optimization_barrier(jnp.stack([numbers[i] for i in indices]))
        for row, i in enumerate(indices):
            result[i] = array[row]
    return result


def _lower_for_cpu(context, *numbers):
    devices = getattr(context.module_context.axis_context, "num_devices", 1)
    if devices == 1:
        return numbers
    return mlir.lower_fun(as_one_array, multiple_results=True)(context, *numbers)


_together = Primitive("together")
_together.multiple_results = True
_together.def_impl(lambda *numbers: list(numbers))
_together.def_abstract_eval(lambda *shapes: list(shapes))
mlir.register_lowering(_together, lambda context, *numbers: numbers)
mlir.register_lowering(_together, _lower_for_cpu, platform="cpu")
batching.primitive_batchers[_together] = lambda numbers, axes: (_together.bind(*numbers), axes)
ad.primitive_jvps[_together] = lambda numbers, tangents: (_together.bind(*numbers), tangents)
