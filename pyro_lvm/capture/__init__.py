"""From a function of tensors to a graph of tensor operations, and from the graph to machine code.

`tracing.py` captures what a function does once; `products.py` chooses the faster of two ways for each of its matrix
products; `lowering.py` hands the graph to PyTorch's compiler; `replayer.py` does so for the batches
a function is called with, and sees that nothing has changed by it; `plain.py` tells when a capture is out of date.
Nothing here knows of programs or objectives.
"""

from pyro_lvm.capture.plain import plain_attributes
from pyro_lvm.capture.products import ProductChoices
from pyro_lvm.capture.replayer import Replayer, same_but_for_rounding
from pyro_lvm.capture.tracing import CannotCapture, being_captured

__all__ = ["CannotCapture", "ProductChoices", "Replayer", "being_captured", "plain_attributes", "same_but_for_rounding"]
