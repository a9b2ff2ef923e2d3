"""Makes peers in PyTorch, where it is installed: its fused Adam, and AdamP from the equations.

AdamP (Heo et al., 2021, arXiv 2006.08217, section 3 and Algorithm 2) projects a direction where
the weights seem scale-invariant. With Adam's direction `p`,

    q = p - (<w, p> / <w, w>) w   if |cos(w, g)| < delta / sqrt(dim w),   else p
    w <- w - lr q

Here each leaf of two dimensions or more is one `w`. The condition is a select, because a
branch would make the GPU wait and the compiler give up.
"""

import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.tools.trees import Shapes

BASELINE = "torch adam, fused"
Step = Callable[[], None]


def installed() -> bool:
    """Tell whether there is PyTorch."""
    return importlib.util.find_spec("torch") is not None


class Peer:
    """Holds a step in PyTorch, ready to be timed like a `timing.Loop`.

    Attributes:
      compile_s: seconds that the first step took, in which PyTorch compiles.
    """

    def __init__(self, step: Step, steps: int):
        self._step, self._steps = step, steps
        begun = time.perf_counter()
        step()
        _wait()
        self.compile_s = time.perf_counter() - begun

    def window(self) -> float:
        """Return the seconds of a step."""
        _wait()
        begun = time.perf_counter()
        for _ in range(self._steps):
            self._step()
        _wait()
        return (time.perf_counter() - begun) / self._steps


def make(shapes: Shapes, steps: int) -> dict[str, Peer]:
    """Make the peers on parameters of these shapes, on the GPU if PyTorch sees one."""
    torch = _torch()
    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    leaves = [0.02 * torch.randn(shape, device=device) for shape in shapes.values()]
    copies = lambda: [w.clone() for w in leaves]
    return {
        BASELINE: Peer(fused_adam(copies()), steps),
        "torch adamp": Peer(adamp(copies()), steps),
        "torch adamp, compiled": Peer(adamp(copies(), compiled=True), steps),
    }


def fused_adam(weights: Sequence[Any], lr: float = 1e-3, eps: float = 1e-6) -> Step:
    """Make a step of `torch.optim.Adam(fused=True)`, with gradients that stay."""
    for w in weights:
        w.grad = _gradient(w)
    return _torch().optim.Adam(weights, lr=lr, eps=eps, fused=True).step


def adamp(
    weights: Sequence[Any],
    gradients: Sequence[Any] | None = None,
    *,
    lr: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    delta: float = 0.1,
    compiled: bool = False,
) -> Step:
    """Make AdamP's step, which changes `weights` in place."""
    torch = _torch()
    gradients = [_gradient(w) for w in weights] if gradients is None else gradients
    first = [torch.zeros_like(w) for w in weights]
    second = [torch.zeros_like(w) for w in weights]
    # In double precision: in single, 1 - b2^t of the first step has an error of 1e-5.
    t = torch.zeros((), dtype=torch.float64, device=weights[0].device)

    def update() -> None:
        t.add_(1)
        for w, g, m, v in zip(weights, gradients, first, second, strict=True):
            m.mul_(b1).add_(g, alpha=1 - b1)
            v.mul_(b2).addcmul_(g, g, value=1 - b2)
            p = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
            w.sub_(_projected(p, w, g, delta) if w.ndim >= 2 else p, alpha=lr)

    return torch.compile(update) if compiled else update


def _projected(p: Any, w: Any, g: Any, delta: float) -> Any:
    cosine = (w * g).sum().abs() / (w.norm() * g.norm())
    share = (w * p).sum() / (w * w).sum()
    return p - (cosine < delta / math.sqrt(w.numel())) * share * w


def _gradient(w: Any) -> Any:
    return 0.1 * w.flip(0)


def _wait() -> None:
    if _torch().cuda.is_available():
        _torch().cuda.synchronize()


def _torch() -> Any:
    return importlib.import_module("torch")
