"""Lightning Fabric's strategy for several processes with a copy of the programs each."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

if TYPE_CHECKING:
    from pyro_lvm.processes import Processes

__all__ = ["Replicas"]


class Replicas(DDPStrategy):
    """Every process on its own device, without PyTorch's wrapper that averages gradients: `Processes.whole` does.

    The wrapper averages processes, and not data; it works by autograd's hooks, which a compiled step has none of; and
    it takes a parameter without a gradient for an error. Nor is this strategy to start processes (see
    `pyro_lvm.launching`): Fabric's either run the caller's script again or, when a process has died, kill the first one
    before it can write a checkpoint.
    """

    def __init__(self, processes: "Processes") -> None:
        super().__init__(cluster_environment=_Given(processes), timeout=timedelta(minutes=30))

    def setup_module(self, module: nn.Module) -> Any:
        """The module as it is."""
        return module

    def _configure_launcher(self) -> None:
        pass


class _Given(ClusterEnvironment):
    """The processes that there are already, in a process group."""

    def __init__(self, processes: "Processes") -> None:
        super().__init__()
        self._processes = processes

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise NotImplementedError("the process group is there already.")

    @property
    def main_port(self) -> int:
        raise NotImplementedError("the process group is there already.")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._processes.size

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self._processes.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self._processes.local_rank

    def node_rank(self) -> int:
        return self._processes.rank // self._processes.on_host
