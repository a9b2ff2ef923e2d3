"""Algorithm 1 in float64 NumPy, written from the paper and independent of the library."""

import abc
from collections.abc import Callable, Collection, Mapping

import numpy as np

Params = dict[str, np.ndarray]
Gradient = Callable[[int, Params], Params]
Schedule = float | Callable[[int], float]
Axes = tuple[int, ...] | None  # the axes a norm runs over; None: all of them


def value(schedule: Schedule, t: int) -> float:
    """The value of a constant or of a schedule at step `t`."""
    return float(schedule(t)) if callable(schedule) else float(schedule)


def as_float64(tree: Mapping[str, np.ndarray]) -> Params:
    """Every leaf in float64, or in complex128 if it is complex."""
    leaves = {name: np.asarray(x) for name, x in tree.items()}
    return {name: x.astype(np.result_type(x.dtype, np.float64)) for name, x in leaves.items()}


def divide(a: np.ndarray, b: np.ndarray, otherwise: float) -> np.ndarray:
    """`a / b`, and `otherwise` where `b` is zero."""
    return np.where(b == 0, otherwise, a / np.where(b == 0, 1.0, b))


def inner(a: np.ndarray, b: np.ndarray, axes: Axes) -> np.ndarray:
    """`<a, b> = Re sum conj(a) b` over `axes`, which stay as axes of length one."""
    return np.sum(np.real(np.conj(a) * b), axis=axes, keepdims=True)


def norm(a: np.ndarray, axes: Axes) -> np.ndarray:
    """`||a|| = sqrt(<a, a>)`."""
    return np.sqrt(inner(a, a, axes))


def unit(a: np.ndarray, axes: Axes) -> np.ndarray:
    """`N(a) = a / ||a||`, and `N(0) = 0`."""
    return divide(a, norm(a, axes), otherwise=0.0)


def project(a: np.ndarray, w: np.ndarray, axes: Axes) -> np.ndarray:
    """`a` on the tangent space `{d : <w, d> = 0}` (equation 3); `a` itself where `w` is zero."""
    return a - divide(inner(w, a, axes), inner(w, w, axes), otherwise=0.0) * w


class Rule(abc.ABC):
    """A rule turns gradients into directions `r`; a step is `-lr * ratio * r`."""

    def __init__(self, lr: Schedule):
        self.lr = lr
        self.start()

    def start(self) -> None:
        """Forget the moments and the step count of the bias correction."""
        self.t, self.m, self.v = 0, {}, {}

    def direction(self, gradient: Params) -> Params:
        """Lines 5-8 of Algorithm 1, arXiv 2108.05839."""
        self.t += 1
        return {name: self.leaf(name, g) for name, g in gradient.items()}

    @abc.abstractmethod
    def leaf(self, name: str, g: np.ndarray) -> np.ndarray:
        """The direction of one leaf."""

    def ratio(self, w_norm: np.ndarray, r_norm: np.ndarray) -> np.ndarray | float:
        """The trust ratio: one, save for LAMB."""
        return 1.0


class Sgd(Rule):
    """SGD with heavy-ball momentum or with Nesterov's."""

    def __init__(self, lr: Schedule, momentum: float = 0.9, nesterov: bool = False):
        super().__init__(lr)
        self.momentum, self.nesterov = momentum, nesterov

    def leaf(self, name: str, g: np.ndarray) -> np.ndarray:
        """`m <- g + momentum m`."""
        m = self.m[name] = g + self.momentum * self.m.get(name, 0.0)
        return g + self.momentum * m if self.nesterov else m


class Adam(Rule):
    """Adam (arXiv 1412.6980) as lines 5-8 of Algorithm 1, arXiv 2108.05839, have it."""

    def __init__(self, lr: Schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6):
        super().__init__(lr)
        self.b1, self.b2, self.eps = b1, b2, eps

    def leaf(self, name: str, g: np.ndarray) -> np.ndarray:
        """`r = m_hat / (sqrt(v_hat) + eps)`."""
        b1, b2 = self.b1, self.b2
        m = self.m[name] = b1 * self.m.get(name, 0.0) + (1 - b1) * g  # line 5
        v = self.v[name] = b2 * self.v.get(name, 0.0) + (1 - b2) * np.abs(g) ** 2  # line 6
        m_hat, v_hat = m / (1 - b1**self.t), v / (1 - b2**self.t)  # line 7
        return m_hat / (np.sqrt(v_hat) + self.eps)  # line 8


class Lamb(Adam):
    """LAMB (arXiv 1904.00962) without weight decay; LAMB+ (2108.05839, B.3.3) is `max_ratio=1`."""

    def __init__(
        self,
        lr: Schedule,
        b1: float = 0.9,
        b2: float = 0.999,
        eps: float = 1e-6,
        max_ratio: float | None = None,
    ):
        super().__init__(lr, b1, b2, eps)
        self.max_ratio = np.inf if max_ratio is None else max_ratio

    def ratio(self, w_norm: np.ndarray, r_norm: np.ndarray) -> np.ndarray:
        """`min(||w|| / ||r||, max_ratio)`, the quotient being one where either norm is zero."""
        quotient = np.where(w_norm == 0, 1.0, divide(w_norm, r_norm, otherwise=1.0))
        return np.minimum(quotient, self.max_ratio)


def newton_schulz(
    x: np.ndarray, coefficients: Collection[tuple[float, float, float]], eps: float
) -> np.ndarray:
    """The matrix sign of `x` by iterations of `a X + (b A + c A^2) X` with `A = X X^T`."""
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T, coefficients, eps).T
    x = x / (np.sqrt(np.sum(x**2)) + eps)
    for a, b, c in coefficients:
        A = x @ x.T
        x = a * x + (b * A + c * A @ A) @ x
    return x


class Muon(Rule):
    """Muon as kellerjordan.github.io/posts/muon has it, of the last two axes of each leaf."""

    def __init__(
        self,
        lr: Schedule,
        beta: float = 0.95,
        nesterov: bool = True,
        coefficients: Collection[tuple[float, float, float]] = ((3.4445, -4.7750, 2.0315),) * 5,
        eps: float = 1e-8,
    ):
        super().__init__(lr)
        self.beta, self.nesterov, self.coefficients, self.eps = beta, nesterov, coefficients, eps

    def leaf(self, name: str, g: np.ndarray) -> np.ndarray:
        """`m <- g + beta m`, looked ahead, orthogonalised."""
        m = self.m[name] = g + self.beta * self.m.get(name, 0.0)
        u = g + self.beta * m if self.nesterov else m
        matrices = u.reshape(-1, *u.shape[-2:])
        turned = [newton_schulz(x, self.coefficients, self.eps) for x in matrices]
        return np.stack(turned).reshape(u.shape)


def capture(params: Params, names: Collection[str] | None, axes: Mapping[str, Axes]) -> Params:
    """`c = ||w||` (equation 1) of the leaves named; by default, of those with ndim >= 2."""
    names = {n for n, w in params.items() if w.ndim >= 2} if names is None else names
    return {n: norm(params[n], axes.get(n)) for n in names}


def tangent(a: np.ndarray, w: np.ndarray, c: np.ndarray, axes: Axes) -> np.ndarray:
    """Lines 4 and 9 of Algorithm 1: project `a`, save where `c` is zero, which stays free."""
    return np.where(c > 0, project(a, w, axes), a)


def free(rule: Rule, w: np.ndarray, r: np.ndarray, lr: float, axes: Axes) -> np.ndarray:
    """The rule's own update of one leaf."""
    return w - lr * rule.ratio(norm(w, axes), norm(r, axes)) * r


def on_sphere(
    rule: Rule, w: np.ndarray, r: np.ndarray, lr: float, axes: Axes, c: np.ndarray, scale: float
) -> np.ndarray:
    """Lines 10-11 of Algorithm 1 on one leaf; a slice whose `c` is zero takes the rule's step."""
    w_next = free(rule, w, r, lr, axes)  # line 10
    return np.where(c > 0, scale * c * unit(w_next, axes), w_next)  # line 11


def train(
    params: Params,
    gradient: Gradient,
    rule: Rule,
    *,
    steps: int,
    switch: int,
    constrained: Collection[str] | None = None,
    axes: Mapping[str, Axes] | None = None,
    target_scale: Schedule = 1.0,
    reset: bool = False,
    norms_of: int | None = None,
    project: bool = True,
) -> list[Params]:
    """LAWN (arXiv 2108.05839, section 3): the weights after each of `steps` updates.

    Updates `0 .. switch - 1` are the rule's own, the others those of Algorithm 1, on the norms that
    update `norms_of` found; by default those of update `switch`. `project` says whether lines 4 and
    9 are taken.
    """
    axes, c, remembered, history = axes or {}, {}, {}, []
    params = as_float64(params)
    rule.start()
    for t in range(steps):
        if t == (switch if norms_of is None else norms_of):
            remembered = capture(params, constrained, axes)
        if t == switch:
            c = remembered
            if reset:
                rule.start()
        lr = value(rule.lr, t)
        scale = value(target_scale, t - switch) if t >= switch else 1.0
        g = as_float64(gradient(t, params))  # line 3
        held = c if project else {}
        g_p = g | {n: tangent(g[n], params[n], held[n], axes.get(n)) for n in held}  # line 4
        r = rule.direction(g_p)  # lines 5-8
        r_p = r | {n: tangent(r[n], params[n], held[n], axes.get(n)) for n in held}  # line 9
        updated = {n: free(rule, w, r_p[n], lr, axes.get(n)) for n, w in params.items()}
        for n in c:
            updated[n] = on_sphere(rule, params[n], r_p[n], lr, axes.get(n), c[n], scale)
        params = as_float64(updated)
        history.append(params)
    return history


def hyperball(
    params: Params,
    gradient: Gradient,
    rule_direction: Rule,
    lr: Schedule,
    *,
    steps: int,
    constrained: Collection[str] | None = None,
    axes: Mapping[str, Axes] | None = None,
) -> list[Params]:
    """Hyperball, `w <- c N(w - lr c N(u))` from the first step; `w <- w - lr u` on free leaves."""
    axes, history = axes or {}, []
    params = as_float64(params)
    c = capture(params, constrained, axes)
    rule_direction.start()
    for t in range(steps):
        eta = value(lr, t)
        u = rule_direction.direction(as_float64(gradient(t, params)))
        updated = {n: w - eta * u[n] for n, w in params.items()}
        for n in c:
            w_next = c[n] * unit(params[n] - eta * c[n] * unit(u[n], axes.get(n)), axes.get(n))
            updated[n] = np.where(c[n] > 0, w_next, updated[n])
        params = as_float64(updated)
        history.append(params)
    return history
