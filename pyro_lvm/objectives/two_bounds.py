"""What objectives share whose model and guide follow different bounds."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from pyro_lvm.objectives.importance_weighted import ImportanceWeighted, read


class TwoBounds(ImportanceWeighted):
    """A bound that the model climbs and another one that the guide climbs, abstract.

    The programs run twice a step, once with the guide held constant and once with the model: in one run, what reaches
    the guide through the model's density would carry the model's weights.
    """

    @abstractmethod
    def guides_per_datum(self, log_w: Tensor) -> Tensor:
        """What the guide climbs, of log-weights (K, *plates), (*plates)."""

    def both(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
        """The model's bound without the guide's gradient, and the guide's without the model's; nats, over all data."""
        name = type(self).__name__
        models = self._weights(model, guide, args, kwargs, gradient="none")
        guides = self._weights(model, guide, args, kwargs, constant_model=True)
        return read(models, name, self.per_datum), read(guides, name, self.guides_per_datum)
