"""GaussianNoise: a few numbers that stand for the noise of Gaussian dropout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdrop import checks, values
from fastdrop.formulas import POSITIONS, c_strides
from fastdrop.stream import RNG, reserved


class GaussianNoise:
    """GaussianNoise(seed, offset, shape, *, keep_prob, strides=None)\n--\n
    The noise of one call of `gaussian_dropout`, from which a backward call draws it again.

    Its size does not grow with the array, because the noise is a pure function of the seed and the
    positions of the elements. It is immutable.

    Parameters
    ----------
    seed : int
        The seed of the stream, ``0 <= seed < 2**128``.
    offset : int
        The position of the first element in the stream.
    shape : int or sequence of int
        The shape of the array that the noise belongs to, with at most 64 axes.
    keep_prob : float
        The noise has mean 1 and variance ``(1 - keep_prob) / keep_prob``. In ``[2**-126, 1]``.
    strides : sequence of int, optional
        The positions from one index to the next on each axis. By default those of C order; a block of
        a larger array (`Tile`) has those of the larger array.

    Attributes
    ----------
    seed, offset : int
    shape, strides : tuple of int
    keep_prob : float
    scale : float
        The standard deviation, before it is rounded to float32.

    Raises
    ------
    TypeError
        If an argument has a type that is not accepted.
    ValueError
        If a value is out of range, or two elements would share noise.

    See Also
    --------
    gaussian_dropout : The call that returns it.
    gaussian_dropout_backward : The call that takes it.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014, section 10.

    Examples
    --------
    >>> import fastdrop as fd
    >>> y, noise = fd.gaussian_dropout([1.0, 10.0, 100.0], keep_prob=0.5, rng=1)
    >>> noise
    GaussianNoise(seed=1, offset=0, shape=(3,), keep_prob=0.5)
    >>> bool((noise.to_array() * [1.0, 10.0, 100.0] == y).all())
    True
    """

    __slots__ = ("_keep_prob", "_offset", "_seed", "_shape", "_strides")
    __array_ufunc__ = None  # no array is made of it by mistake

    def __init__(
        self,
        seed: int,
        offset: int,
        shape: int | Sequence[int],
        *,
        keep_prob: float,
        strides: Sequence[int] | None = None,
    ) -> None:
        self._begin(seed, offset, shape, keep_prob, strides)

    def _begin(self, seed: Any, offset: Any, shape: Any, keep_prob: Any, strides: Any) -> None:
        if self._made():
            raise values.made_already("GaussianNoise")
        seed, start = checks.seed("seed", seed), checks.position(offset)
        shape = checks.shape_of("shape", shape)
        keep_prob = checks.noise_probability(keep_prob)
        steps = c_strides(shape) if strides is None else checks.lengths("strides", strides)
        check_strides(steps, shape, strides)
        if math.prod(shape) and reach(shape, steps) > POSITIONS - start:
            raise ValueError(f"offset must leave room for shape {shape} before 2**64, got {offset!r}")
        self._offset, self._shape, self._keep_prob, self._strides = start, shape, keep_prob, steps
        self._seed = seed

    def _restore(self, seed: Any, offset: Any, shape: Any, keep_prob: Any, strides: Any) -> None:
        self._begin(seed, offset, shape, keep_prob, strides)

    def _made(self) -> bool:
        try:
            return self._seed is not None
        except AttributeError:  # plain Python has no such slot yet; the compiled field is None
            return False

    def _known(self) -> None:
        if not self._made():
            raise values.unmade("GaussianNoise")

    def _fields(self) -> tuple[Any, ...]:
        self._known()
        return self._seed, self._offset, self._shape, self._keep_prob, self._strides

    def _plain(self) -> GaussianNoise:
        """Return the same noise as a plain GaussianNoise, without what a subclass overrides."""
        fields = GaussianNoise._fields(self)
        return self if type(self) is GaussianNoise else noise_of(*fields)

    @property
    def seed(self) -> int:
        """The seed of the stream."""
        self._known()
        return self._seed

    @property
    def offset(self) -> int:
        """The position of the first element in the stream."""
        self._known()
        return self._offset

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that the noise belongs to."""
        self._known()
        return self._shape

    @property
    def keep_prob(self) -> float:
        """The keep probability of inverted dropout with the same variance."""
        self._known()
        return self._keep_prob

    @property
    def strides(self) -> tuple[int, ...]:
        """The positions from one index to the next on each axis."""
        self._known()
        return self._strides

    @property
    def scale(self) -> float:
        """The standard deviation, before it is rounded to float32."""
        self._known()
        return math.sqrt((1 - self._keep_prob) / self._keep_prob)

    def to_array(self) -> NDArray[np.float32]:
        """Return the noise as an array.

        Returns
        -------
        ndarray of float32, shape `shape`

        Examples
        --------
        >>> import fastdrop as fd
        >>> fd.GaussianNoise(seed=1, offset=0, shape=2, keep_prob=1.0).to_array()
        array([1., 1.], dtype=float32)
        """
        from fastdrop.functional import gaussian_dropout_backward

        self._known()
        ones = np.ones(self._shape, np.float32)
        return gaussian_dropout_backward(ones, self, out=ones)

    def stretches(self) -> Iterator[tuple[slice, int]]:
        """Yield the stretches: elements, in C order, with successive positions, and the first position.

        Yields
        ------
        elements : slice
            Indices of elements in C order.
        position : int
            The position of the first of them in the stream.

        Examples
        --------
        >>> import fastdrop as fd
        >>> list(fd.GaussianNoise(seed=1, offset=5, shape=(2, 3), keep_prob=0.5).stretches())
        [(slice(0, 6, None), 5)]
        """
        self._known()
        size = math.prod(self._shape)
        if not size or self._strides == c_strides(self._shape):
            yield slice(0, size), self._offset
            return
        *rows, length = self._shape
        if self._strides[-1] != 1:  # then every element is a stretch
            rows, length = [*rows, length], 1
        for number, index in enumerate(np.ndindex(*rows)):
            start = self._offset + sum(map(mul, index, self._strides))
            yield slice(number * length, (number + 1) * length), start

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GaussianNoise):
            return NotImplemented
        return GaussianNoise._fields(self) == GaussianNoise._fields(other)

    def __hash__(self) -> int:
        return hash(GaussianNoise._fields(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return values.reduced(self, GaussianNoise, GaussianNoise._fields(self))

    def __repr__(self) -> str:
        seed, offset, shape, keep_prob, strides = GaussianNoise._fields(self)
        apart = "" if strides == c_strides(shape) else f", strides={strides}"
        return f"GaussianNoise(seed={seed}, offset={offset}, shape={shape}, keep_prob={keep_prob}{apart})"


values.register(GaussianNoise)


def reach(shape: tuple[int, ...], steps: tuple[int, ...]) -> int:
    """Return the number of positions from the first element to the last, both included."""
    positions = 1
    for length, step in zip(shape, steps):
        positions += (length - 1) * step
    return positions


def check_strides(steps: tuple[int, ...], shape: tuple[int, ...], given: Any) -> None:
    """Refuse strides that do not fit the shape, or with which two elements would share noise."""
    if len(steps) != len(shape):
        raise ValueError(f"strides must have a number for each axis of {shape}, got {given!r}")
    if max(steps, default=0) >= POSITIONS:
        raise ValueError(f"strides must be in [0, 2**64), got {given!r}")
    covered = 1  # the positions that the axes with shorter strides reach
    for step, length in sorted(zip(steps, shape)):
        if length > 1 and 0 not in shape:
            if step < covered:
                raise ValueError(f"strides must give each element noise of its own, got {given!r}")
            covered += step * (length - 1)


def drawn_noise(rng: RNG, shape: tuple[int, ...], keep_prob: float) -> GaussianNoise:
    """Reserve positions for an array, and return its noise; `keep_prob` has been checked."""
    seed, start, strides = reserved(rng, shape)
    return noise_of(seed, start, shape, keep_prob, strides)


def noise_of(seed: Any, offset: Any, shape: Any, keep_prob: Any, strides: Any) -> GaussianNoise:
    """Return the noise that has these fields."""
    return GaussianNoise(seed, offset, shape, keep_prob=keep_prob, strides=strides)


def noise_for_backward(noise: Any, dy: NDArray[Any]) -> GaussianNoise:
    """Return `noise` as a plain GaussianNoise if it fits the gradient `dy`."""
    if not isinstance(noise, GaussianNoise):
        raise TypeError(f"noise must be a GaussianNoise, got {type(noise).__name__}")
    own = GaussianNoise._plain(noise)
    if own.shape != dy.shape:
        raise ValueError(f"noise must have dy's shape {dy.shape}, got {own.shape}")
    return own
