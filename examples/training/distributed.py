"""Processes: how a run joins others, what they agree on, and how it learns that it should stop."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """How the processes of a run find each other."""

    distributed: bool = False
    """Be one of several processes, each started with the same command.
    On Slurm, Open MPI, Kubernetes and TPUs nothing else is needed. All must see the same folders;
    the first process writes."""
    coordinator: str | None = None
    """Address and port of the first process, as 10.0.0.1:1234.
    By default what the cluster says, or $JAX_COORDINATOR_ADDRESS."""
    num_processes: int | None = None
    """How many processes there are; by default what the cluster says."""
    process_id: int | None = None
    """Which one this is, the first being 0; by default what the cluster says."""

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in FOUND_OUT if getattr(self, name) is not None}
        if given and not self.distributed:
            raise ValueError(f"{given} without distributed: give it too, or leave them out.")
        if (self.num_processes is None) != (self.process_id is None):
            raise ValueError(
                f"num_processes={self.num_processes} and process_id={self.process_id}: give both,"
                " or neither."
            )
        if self.num_processes is not None and not 0 <= (self.process_id or 0) < self.num_processes:
            raise ValueError(
                f"process_id={self.process_id} must lie between 0 and"
                f" num_processes={self.num_processes} - 1."
            )


FOUND_OUT = ("coordinator", "num_processes", "process_id")


class StoppedError(Exception):
    """Training was asked to stop, and has saved; the message says how to go on."""


def join(cluster: Cluster) -> None:
    """Join the other processes, once; before JAX is used."""
    if not cluster.distributed or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(cluster.coordinator, cluster.num_processes, cluster.process_id)
    except ValueError as error:
        raise ValueError(
            f"distributed: {error} The environment names no cluster; give --coordinator"
            " HOST:PORT, --num-processes N and --process-id I."
        ) from error


def is_first() -> bool:
    """Tell whether this is the one process that writes and prints."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Tell whether the flag is set in any process; all must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def of_first(number: int) -> int:
    """Return the number that the first process has; all must ask."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Keep SIGTERM from ending anything: what is yielded says whether it came, to any process.

    Ctrl-C ends all at once, or where something has swallowed it, as asyncio and finalisers may,
    when that is asked next.
    """
    came: dict[int, bool] = dict.fromkeys((signal.SIGTERM, signal.SIGINT), False)
    if threading.current_thread() is not threading.main_thread():
        yield lambda: any_process(False)
        return

    def note(number: int, _: Any) -> None:
        came[number] = True
        interrupt()

    def interrupt() -> None:
        if came[signal.SIGINT]:
            raise KeyboardInterrupt

    def asked() -> bool:
        interrupt()
        return any_process(came[signal.SIGTERM])

    before = {number: signal.signal(number, note) for number in came}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            # None is a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
