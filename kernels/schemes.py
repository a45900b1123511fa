import os
from torch import Tensor
VARIABLE="LKSPACE_SCHEME"
def scheme_for(direction: str, x: Tensor, weight: Tensor) -> str:
    return os.environ.get(VARIABLE) or "direct"
