"""How several processes come to work on one run: forked from this one, or joined where a launcher has started them."""

import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch._C._distributed_c10d import FileStore, PrefixStore
from torch.distributed.rendezvous import rendezvous

from pyro_lvm.processes import OneProcess, Processes, SeveralProcesses
from pyro_lvm.threads import threads

__all__ = ["alone", "launching", "leads"]

T = TypeVar("T")
Launch = Callable[[Callable[[Processes], T]], T]

_PATIENCE = 10.0  # seconds for a forked process to end once the run has

_alone = False  # while what runs is one process's own affair
_met: tuple[Any, int, int] | None = None  # the store of a launcher's processes, this one's rank, and their number
_groups = 0  # that they have formed


@contextmanager
def launching(devices: int) -> Iterator[Launch[Any]]:
    """Gives a function that runs a function in every process of a run, and returns its result.

    - Where a launcher such as `torchrun` has started the processes (RANK, WORLD_SIZE and MASTER_ADDR are set), or
      a PyTorch process group is there, they are all of these. Every one is here by itself and has the result.
    - Else, `devices` = 1 is this process alone.
    - Else processes are forked from this one when the function is called, which has all that was made before, and
      end with it: only this one goes on, with the result.

    An error of one process, in the function or, under a launcher, anywhere inside the context, is raised by all.

    Raises:
        ValueError: where processes cannot be had in this way.
        ProcessLost: where one was killed.
    """
    if _alone:
        yield lambda function: function(OneProcess())
    elif _launched():
        processes = _join(devices)
        try:
            yield lambda function: function(processes)
        except BaseException as error:
            processes.leave(error)
            raise
    elif devices == 1:
        yield lambda function: function(OneProcess())
    else:
        _check_forkable(devices)
        yield partial(_fork, devices)


def leads() -> bool:
    """Whether this process is the one to print and to write, of those that a launcher has started, if one has."""
    return int(os.environ.get("RANK", "0")) == 0 if _launched() else True


@contextmanager
def alone() -> Iterator[None]:
    """While it is entered, this process does by itself what otherwise all do together."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def _launched() -> bool:
    return dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1


def _join(devices: int) -> Processes:
    """This process, as one of those that a launcher has started."""
    if not dist.is_initialized():
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise ValueError(
                f"the environment has WORLD_SIZE = {os.environ['WORLD_SIZE']}, as if a launcher had started the "
                f"process, but no {missing[0]}: start it with torchrun, or unset WORLD_SIZE."
            )
        _connect()
    rank, size = dist.get_rank(), dist.get_world_size()
    on_host = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if devices not in (1, on_host):
        raise ValueError(
            f"'devices' = {devices}, but the launcher has started {on_host} processes on this host: leave 'devices' "
            "out, for it is the launcher that decides."
        )
    if size == 1:
        return OneProcess()
    local_rank = int(os.environ.get("LOCAL_RANK", rank % on_host))
    store = dist.distributed_c10d._get_default_store()
    processes = SeveralProcesses(rank, size, local_rank, on_host, store, what_became=str)
    processes.gather(None)  # whoever fails at once must not leave while others are still connecting
    return processes


def _connect() -> None:
    """Makes a process group of the processes that a launcher has started."""
    global _met, _groups
    if _met is None:
        _met = next(rendezvous("env://"))
    store, rank, size = _met
    # A group that an error has ended leaves behind where its members could be found: the next one has other names.
    _groups += 1
    dist.init_process_group(store=PrefixStore(f"pyro_lvm/{_groups}", store), rank=rank, world_size=size)


def _check_forkable(devices: int) -> None:
    if not hasattr(os, "fork"):
        why = "this system cannot fork processes"
    elif torch.cuda.is_initialized():
        why = "this process uses CUDA already, and cannot be forked any more"
    else:
        return
    raise ValueError(
        f"'devices' = {devices} cannot be had from within Python, for {why}: start the script with `torchrun "
        f"--nproc-per-node={devices}`."
    )


def _fork(devices: int, function: Callable[[Processes], T]) -> T:
    """Runs the function here, as the leader, and in processes forked from this one."""
    forked = _Forked()
    # One thread here, as in the others: a forked process cannot use the threads that OpenMP has in this one.
    with tempfile.TemporaryDirectory() as folder, threads(1):
        take_part = partial(_take_part, os.path.join(folder, "store"), devices, function)
        try:
            for rank in range(1, devices):
                forked.start(partial(take_part, rank, str))
            return take_part(0, forked.what_became)
        finally:
            forked.end()


def _take_part(
    store_file: str, size: int, function: Callable[[Processes], T], rank: int, what_became: Callable[[], str]
) -> T:
    store = FileStore(store_file, size)
    dist.init_process_group(store=store, rank=rank, world_size=size)
    processes = SeveralProcesses(rank, size, rank, size, store, what_became)
    try:
        processes.gather(None)  # whoever fails at once must not leave while others are still connecting
        result = function(processes)
        processes.gather(None)  # nor whoever has done its part
    except BaseException as error:
        processes.leave(error)
        raise
    dist.destroy_process_group()
    return result


class _Forked:
    """Processes forked from this one, by rank from 1."""

    def __init__(self) -> None:
        self._running: dict[int, int] = {}  # process id by rank
        self._killed: list[str] = []

    def start(self, work: Callable[[], object]) -> None:
        """Forks a process, whose whole life is this work: it never goes back to what this one was doing."""
        with warnings.catch_warnings():
            # Python 3.12 warns of threads, which OpenMP and the like have: the forked process uses none of them.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child:
            self._running[len(self._running) + 1] = child
            return
        status = 1
        try:
            torch.set_num_threads(1)
            work()
            status = 0
        except BaseException:
            pass  # the leader raises it
        finally:
            os._exit(status)

    def what_became(self) -> str:
        """What has become of those that ended without saying why; an empty text if none has."""
        deadline = time.monotonic() + 2.0
        while not self._killed and time.monotonic() < deadline:
            self._look()
            time.sleep(0.05)
        return "; ".join(self._killed)

    def end(self) -> None:
        """Waits until all have ended, and kills those that do not."""
        deadline = time.monotonic() + _PATIENCE
        while self._running:
            self._look()
            time.sleep(0.005)
            if time.monotonic() > deadline:
                for child in self._running.values():
                    os.kill(child, signal.SIGKILL)

    def _look(self) -> None:
        for rank, child in list(self._running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del self._running[rank]
                code = os.waitstatus_to_exitcode(status)
                if code < 0:
                    how = signal.Signals(-code).name
                    self._killed.append(f"process {rank} of the run (number {child} on this host) was killed by {how}")
