"""The function learned at infinite width, on training and test points: equations (1) and (3) of the paper.

Gradient flow with kernel e^{-2(k-1)λt} Θ keeps f in the span of the kernel's columns,

    f(x, t) = e^{-kλt} f_0(x) + Θ(x, X) A(t),      dA/dt = -kλ A - e^{-2(k-1)λt} ∂L/∂f(X, t),     A(0) = 0,

so one matrix A, the size of the labels, gives the function everywhere. For squared loss A is known mode by mode.
"""

from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp

from l2dyn.theory._checks import choice, finite, increasing, number, positive_eigenvalues, shown, symmetric
from l2dyn.theory.modes import mode_quotients

REDUCTIONS = ("sum", "mean")
STIFF = ("Radau", "BDF")
METHODS = (*STIFF, "RK45", "DOP853")
_MOST_GROWTH = 100.0


def evolve(
    kernel_train, y, l2, k, t, kernel_test=None, initial=0.0, initial_test=0.0, reduction="sum"
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """f(x, t) under squared loss ½(f - y)² and L2 regularization, equation (3) on every mode of the kernel.

    Args:
        kernel_train: NTK Θ(X, X) of the network at t = 0, [N, N]; decomposed once, however many times there are.
        y: targets [N] or, with several outputs, [N, C].
        l2: L2 coefficient λ of the objective L + (λ/2) ‖θ‖².
        k: degree of homogeneity, any number from 0 on.
        t: gradient-flow times (learning rate times steps), any shape.
        kernel_test: Θ(x, X), [M, N]; then the function at the M test points is returned, too.
        initial, initial_test: the function at t = 0 on training and test points; anything that broadcasts to
            y's shape and to [M] or [M, C].
        reduction: of the loss over samples, "sum" or "mean" (which divides the kernel by N).

    Returns:
        f on the training points, t.shape + y.shape; with kernel_test a pair, the second t.shape + [M] (+ [C]).
        Where λ > 0 and k = 1, f(x, ∞) = Θ(x, X) (Θ + λ)^{-1} y, with λN in the place of λ for "mean".

    Raises:
        ValueError: an argument is not finite or of another shape, l2, k or t is negative, the kernel is not
            symmetric, or has negative eigenvalues beyond the rounding of its precision.

    >>> train, test = evolve([[2.0, 0.5], [0.5, 1.0]], [1.0, -1.0], l2=0.1, k=1, t=1e4, kernel_test=[[1.0, 1.0]])
    >>> print(train.round(4), test.round(4))
    [ 0.9223 -0.8738] [-0.4854]
    """
    problem = _Problem(kernel_train, y, l2, k, t, kernel_test, initial, initial_test, reduction)
    eigenvalues, modes = np.linalg.eigh(problem.kernel)
    eigenvalues = positive_eigenvalues("kernel_train", eigenvalues, problem.kernel)
    scale = problem.scale
    times = problem.t.reshape(-1, 1)
    of_initial, of_target = mode_quotients(times, eigenvalues * scale, problem.l2, problem.k)  # [T, N]
    parts = (of_initial[..., None] * (modes.T @ problem.initial)) + of_target[..., None] * (modes.T @ problem.y)
    return problem.functions(scale * (modes @ parts))


def integrate(
    kernel_train,
    y,
    loss,
    l2,
    k,
    t,
    kernel_test=None,
    initial=0.0,
    initial_test=0.0,
    reduction="sum",
    rtol=1e-8,
    method="Radau",
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """f(x, t) for any loss, by a stiff integrator: equation (1), with kernel Θ ⊗ 1 for several outputs.

    Args:
        loss: "half_mse", ½ Σ (f - y)² over outputs; "cross_entropy", softmax, y being probabilities (rows of 0 and 1
            for classes); or a function of f and y, both [N, C], that returns the gradient ∂ℓ/∂f of each sample's
            loss, [N, C].
        t: times in increasing order, [T].
        rtol: relative tolerance of the integrator.
        method: of scipy's solve_ivp. "Radau" and "BDF", stiff, factorize matrices of N·C rows; "RK45" and "DOP853",
            explicit, only multiply by the kernel, in a number of steps that grows as γ_max/λ: for many samples, while
            that is some thousands at the most.
        The others are those of `evolve`; "mean" divides by N, not by N·C.

    Returns:
        As `evolve`.

    Raises:
        ValueError: as `evolve`, for an unknown loss or method, for times that do not increase, and for an integration
            that fails.

    >>> one_hot = np.eye(2)
    >>> f = integrate(np.eye(2), one_hot, "cross_entropy", l2=0.0, k=2, t=[0.0, 2.0])
    >>> print(f[1].round(3))  # both classes on their way
    [[ 0.653 -0.653]
     [-0.653  0.653]]
    """
    problem = _Problem(kernel_train, y, l2, k, t, kernel_test, initial, initial_test, reduction)
    times = increasing("t", t)
    choice("method", method, METHODS)
    rtol = number("rtol", rtol)
    if rtol < 1e-13:
        raise ValueError(f"rtol must be at least 1e-13, not {rtol}")
    if 2 * (1 - problem.k) * problem.l2 * times[-1] > _MOST_GROWTH:
        raise ValueError(f"t must end before a kernel with k = {problem.k:g} has grown by e^{_MOST_GROWTH:g}")
    positive_eigenvalues("kernel_train", np.linalg.eigvalsh(problem.kernel), problem.kernel)
    gradient, curvature = _loss(loss, problem.y)
    shape, kernel, scale = problem.y.shape, problem.kernel, problem.scale

    def learned(time: float, state: np.ndarray) -> np.ndarray:
        return np.exp(-problem.k * problem.l2 * time) * problem.initial + kernel @ state.reshape(shape)

    def shrunk(time: float) -> float:
        return scale * np.exp(-2 * (problem.k - 1) * problem.l2 * time)

    def slope(time: float, state: np.ndarray) -> np.ndarray:
        push = shrunk(time) * gradient(learned(time, state), problem.y)
        return -problem.k * problem.l2 * state - push.ravel()

    def jacobian(time: float, state: np.ndarray) -> np.ndarray:
        second = curvature(learned(time, state))  # [N, C, C]
        through = np.einsum("ncd,nm->ncmd", second, kernel).reshape(state.size, state.size)
        return -problem.k * problem.l2 * np.eye(state.size) - shrunk(time) * through

    if times[-1] == 0:
        return problem.functions(np.zeros((len(times), *shape)))
    solved = solve_ivp(
        slope,
        (0.0, float(times[-1])),
        np.zeros(problem.y.size),
        method=method,
        t_eval=times,
        rtol=rtol,
        atol=rtol * max(abs(problem.y).max(), 1e-300) / max(abs(kernel).max(), 1e-300),
        **({"jac": jacobian if curvature else None} if method in STIFF else {}),
    )
    if not solved.success:
        raise ValueError(f"the integration failed: {solved.message}")
    return problem.functions(solved.y.T.reshape(len(times), *shape))


class _Problem:
    """The checked arguments of `evolve` and `integrate`; labels and functions as [N, C]."""

    def __init__(self, kernel_train, y, l2, k, t, kernel_test, initial, initial_test, reduction):
        y = finite("y", y)
        if y.ndim not in (1, 2) or y.size == 0:
            raise ValueError(f"y must have shape [samples] or [samples, outputs], but has shape {y.shape}")
        choice("reduction", reduction, REDUCTIONS)
        self.single, count = y.ndim == 1, len(y)
        self.y = y.reshape(count, -1)
        self.kernel = symmetric("kernel_train", kernel_train, count)
        self.scale = 1.0 / count if reduction == "mean" else 1.0
        self.t = finite("t", t, nonnegative=True)
        self.l2, self.k = number("l2", l2), number("k", k)
        self.initial = self._function("initial", initial, count)
        self.kernel_test = None
        if kernel_test is not None:
            self.kernel_test = finite("kernel_test", kernel_test)
            if self.kernel_test.ndim != 2 or self.kernel_test.shape[1] != count:
                raise ValueError(f"kernel_test must have shape [points, {count}], but has {self.kernel_test.shape}")
            self.initial_test = self._function("initial_test", initial_test, len(self.kernel_test))
        elif np.any(initial_test):
            raise ValueError("initial_test goes with kernel_test")

    def _function(self, name: str, value, count: int) -> np.ndarray:
        value, shape = finite(name, value), (count,) if self.single else (count, self.y.shape[1])
        try:
            return np.broadcast_to(value, shape).reshape(count, -1)
        except ValueError:
            raise ValueError(f"{name} must broadcast to shape {shape}, but has shape {value.shape}") from None

    def functions(self, coefficients: np.ndarray):
        """The function on training points, and on test points where there are any, from A at each time [T, N, C]."""
        decay = np.exp(-self.k * self.l2 * self.t.reshape(-1, 1, 1))

        def at(initial: np.ndarray, kernel: np.ndarray) -> np.ndarray:
            values = decay * initial + kernel @ coefficients
            return (values[..., 0] if self.single else values).reshape(self.t.shape + values.shape[1 : 3 - self.single])

        train = at(self.initial, self.kernel)
        return train if self.kernel_test is None else (train, at(self.initial_test, self.kernel_test))


def _loss(loss, y: np.ndarray) -> tuple[Callable, Callable | None]:
    """The gradient of each sample's loss, [N, C], and its second derivative, [N, C, C], where it is known."""
    if callable(loss):
        return (lambda f, y: _checked_gradient(loss, f, y)), None
    if choice("loss", loss, ("half_mse", "cross_entropy")) == "half_mse":
        return (lambda f, y: f - y), (lambda f: np.broadcast_to(np.eye(f.shape[1]), (*f.shape, f.shape[1])))
    if y.shape[1] < 2 or (y < 0).any() or abs(y.sum(axis=1) - 1).max() > 1e-6:
        raise ValueError("y must hold probabilities for cross_entropy: rows [C], C at least 2, that sum to 1")
    return (lambda f, y: _softmax(f) - y), _softmax_curvature


def _checked_gradient(loss: Callable, f: np.ndarray, y: np.ndarray) -> np.ndarray:
    try:
        found = np.asarray(loss(f, y), dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"loss must return a gradient of shape {f.shape}: {shown(error)}") from error
    if found.shape != f.shape or not np.isfinite(found).all():
        raise ValueError(f"loss must return a finite gradient of shape {f.shape}, but returned {shown(found)}")
    return found


def _softmax(f: np.ndarray) -> np.ndarray:
    powers = np.exp(f - f.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _softmax_curvature(f: np.ndarray) -> np.ndarray:
    p = _softmax(f)
    return p[:, :, None] * np.eye(f.shape[1]) - p[:, :, None] * p[:, None, :]
