"""Makes ``import torchvision`` work where torchvision's compiled operators do not load.

torchvision's wheels on the package registry are built for CUDA. Beside a CPU build of PyTorch their operators fail to
load, which torchvision forgives, and ``import torchvision`` then fails on «operator torchvision::nms does not exist»,
because it registers shape functions for two operators that nobody declared. Declaring their schemas is enough: data
sets and transforms need none of the operators.
"""

import importlib.machinery
import importlib.util
import sys

import torch

# A torch.library.Library takes its declarations with it when it is collected.
_LIBRARY: torch.library.Library | None = None


def declare_missing_operators() -> bool:
    """Declare ``torchvision::nms`` and ``torchvision::qnms`` if ``import torchvision`` would fail without them.

    Call it before anything imports torchvision, or a package that does (torchmetrics, for one). It does nothing where
    torchvision is absent, already imported or in working order, and nothing when called again.

    Returns:
        Whether this call declared them.

    Example:
        >>> _ = declare_missing_operators()
        >>> import torchvision
        >>> declare_missing_operators()
        False
    """
    global _LIBRARY
    # The wheels in question are Linux ones; elsewhere the operators may need more than a plain load to load.
    if _LIBRARY is not None or not sys.platform.startswith("linux") or "torchvision" in sys.modules:
        return False
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations or _operators_load(package.submodule_search_locations):
        return False
    _LIBRARY = torch.library.Library("torchvision", "DEF")
    _LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return True


def _operators_load(locations: list[str]) -> bool:
    """Whether the operators are there, loading them from the package's folders as torchvision itself would."""
    try:
        _ = torch.ops.torchvision.nms
        return True
    except AttributeError:
        pass  # not declared so far
    extension = importlib.machinery.PathFinder.find_spec("_C", list(locations))
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except OSError:
        return False
    return True
