"""Monte Carlo dropout: the spread of a network's predictions under dropout as its uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop.checks import at_least_one, integer
from fastdrop.foreign import base_array
from fastdrop.formulas import POSITIONS
from fastdrop.progress import progress as progress_bar
from fastdrop.stream import RNG, Stream, StreamRows, as_stream, sample_stream

STRETCH = 2**40  # positions that a sample has by default: a million layers of a million units


@dataclass(frozen=True, eq=False)
class MonteCarlo:
    """What `mc_predict` finds.

    Attributes
    ----------
    mean : ndarray of float64 or complex128
        The mean of the predictions.
    variance : ndarray of float64
        Their variance, without bias (divided by one less than their number); NaN for one sample. That
        of complex predictions is ``E |z - mean|**2``, a real number.
    samples : ndarray or None
        The predictions, sample by sample along the first axis, if they were to be kept.
    count : int
        How many samples there were.
    seed, offset, stretch : int
        Sample ``k`` used the stream `seed` from position ``offset + k * stretch`` on. The streams that
        it spawned are no other sample's.
    """

    mean: NDArray[Any]
    variance: NDArray[np.float64]
    samples: NDArray[Any] | None
    count: int
    seed: int
    offset: int
    stretch: int
    _prefix: tuple[int, ...] = field(default=(), repr=False)  # of the stream's spawn keys

    def stream(self, sample: int) -> Stream:
        """The stream of a sample: ``predict(x, result.stream(k))`` is sample ``k`` again."""
        number = integer("sample", sample)
        if not 0 <= number < self.count:
            raise IndexError(f"sample must be in [0, {self.count}), got {sample!r}")
        return sample_stream(self.seed, self.offset + number * self.stretch, self._prefix)


MonteCarlo.__module__ = "fastdrop"  # what a pickle names, so that this file may move


def mc_predict(
    predict: Callable[[Any, Any], ArrayLike],
    x: ArrayLike,
    samples: int,
    rng: RNG = None,
    *,
    keep_samples: bool = False,
    chunk: int | None = None,
    stretch: int = STRETCH,
    progress: bool = False,
) -> MonteCarlo:
    """Mean and variance of predictions with dropout left on.

    Each sample is a prediction by one thinned network, and has a stretch of the stream of its own.
    So sample ``k`` is the same whatever the number of samples, and can be made again alone.

    Parameters
    ----------
    predict : callable
        ``predict(x, stream)`` computes the network's output with dropout, and passes `stream` as
        ``rng=`` to every call that drops, in the same order each time. The `stream` may be copied, set
        back, and may spawn others, which differ from sample to sample. The result is copied, so
        `predict` may write each into the same array.
    x : array_like
        The inputs, of which the first axis counts the examples. Each sample gets a copy, which `predict`
        may write to.
    samples : int
        How many predictions to make; at least 1.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        Where the randomness comes from. A `Stream` is moved on by ``samples * stretch`` positions.
    keep_samples : bool, default False
        Whether to keep every prediction; else memory does not grow with `samples`.
    chunk : int, optional
        How many examples to predict at a time, so that the memory that `predict` takes stays
        bounded; all by default. It changes no mask: where dropout is applied and in the result, the
        first axis has to count the examples, as it does in `x`; else the call is refused. (A matrix
        product in `predict` may round fewer rows differently. An array that happens to have as many
        rows as a chunk, but counts something else, as weights do, cannot be told apart: leave `chunk`
        out there.) `stream` then stands for the rows of the chunk: it has no seed to tell, and makes
        no tiles.
    stretch : int, default 2**40
        The positions that a sample may use, over all chunks; using more is an error.
    progress : bool, default False
        Whether to show a bar on standard error (with rich, on a terminal).

    Returns
    -------
    MonteCarlo

    Raises
    ------
    TypeError
        If an argument has another type, or the results are no numbers.
    ValueError
        If a number is outside of what is accepted, the stream has too few positions left, `predict`
        uses more positions than `stretch`, or its results differ in shape.

    Notes
    -----
    The positions of all samples are reserved first. They stay so if `predict` raises.

    The mean and variance are updated sample by sample in float64 (B. P. Welford, "Note on a method
    for calculating corrected sums of squares and products", Technometrics 4, 1962).

    References
    ----------
    Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in
    deep learning", ICML, 2016.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> weights = np.ones((100, 1)) / 100
    >>> def predict(x, stream):
    ...     return fd.dropout(x, 0.5, rng=stream)[0] @ weights
    >>> result = fd.mc_predict(predict, np.ones((2, 100)), samples=1000, rng=1)
    >>> result.mean.round(1)
    array([[1.],
           [1.]])
    >>> result.variance.round(2)
    array([[0.01],
           [0.01]])
    """
    if not callable(predict):
        raise TypeError(f"predict must be callable, got {type(predict).__name__}")
    x = base_array("x", x)
    samples, stretch = at_least_one("samples", samples), at_least_one("stretch", stretch)
    rows = rows_of_chunks(x, chunk)
    stream = as_stream(rng)
    left = POSITIONS - stream.offset
    if samples * stretch > left:
        raise ValueError(
            f"samples must be at most {left // stretch}: each takes {stretch} of the {left} positions that "
            f"{stream!r} has left, got {samples}"
        )
    seed, _, _, prefix = Stream._fields(stream)
    offset = stream.reserve(samples * stretch)
    result = MonteCarlo(np.empty(0), np.empty(0), None, samples, seed, offset, stretch, prefix)
    moments, kept = Moments(), []
    with progress_bar("predicting", samples) if progress else nullcontext(lambda: None) as advance:
        for number in range(samples):
            sample = one_sample(predict, x, rows, result.stream(number), stretch)
            moments.add(sample)
            if keep_samples:
                kept.append(sample)
            advance()
    return replace(
        result,
        mean=moments.mean,
        variance=moments.variance(),
        samples=np.stack(kept) if keep_samples else None,
    )


class Moments:
    """Mean and variance of arrays that come one by one."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = np.float64(0)
        self.squares: Any = np.float64(0)

    def add(self, sample: NDArray[Any]) -> None:
        if self.count and sample.shape != self.mean.shape:
            raise ValueError(
                f"predict must give the same shape each time, {self.mean.shape}, got {sample.shape}"
            )
        self.count += 1
        deviation = sample - self.mean
        self.mean = self.mean + deviation / self.count
        self.squares = self.squares + (np.conj(deviation) * (sample - self.mean)).real

    def variance(self) -> NDArray[np.float64]:
        if self.count > 1:
            return self.squares / (self.count - 1)
        return np.full_like(self.mean.real, np.nan)


def one_sample(
    predict: Callable[[Any, Any], ArrayLike],
    x: NDArray[Any],
    rows: list[slice],
    stream: Stream,
    stretch: int,
) -> NDArray[Any]:
    """A prediction for all of `x`, chunk by chunk."""
    if len(rows) == 1:
        return one_part(predict, x, stream, stretch)
    parts = []
    for part in rows:
        own = StreamRows(copy(stream), part.start, part.stop - part.start, len(x))
        parts.append(one_part(predict, x[part], own, stretch))
        if parts[-1].shape[:1] != (part.stop - part.start,):
            raise ValueError(
                "predict must give a result for each example along the first axis where chunk is given, "
                f"got shape {parts[-1].shape} for {part.stop - part.start} examples"
            )
    return np.concatenate(parts)


def one_part(
    predict: Callable[[Any, Any], ArrayLike], x: NDArray[Any], stream: Stream | StreamRows, stretch: int
) -> NDArray[Any]:
    start = stream.offset
    result = numbers(predict(x.copy("K"), stream))
    used = stream.offset - start
    if not 0 <= used <= stretch:
        raise ValueError(f"stretch must be at least the {used} that predict uses, got {stretch}")
    return result


def numbers(prediction: ArrayLike) -> NDArray[Any]:
    """A copy of a prediction, as `predict` may use the memory again."""
    result = base_array("the result of predict", prediction).copy()
    if not np.can_cast(result.dtype, np.complex128, "same_kind"):
        raise TypeError(f"predict must give numbers, got {result.dtype.name}")
    return result


def rows_of_chunks(x: NDArray[Any], chunk: int | None) -> list[slice]:
    if chunk is None:
        return [slice(None)]
    chunk = at_least_one("chunk", chunk)
    if x.ndim == 0:
        raise ValueError("x must have a first axis that counts examples where chunk is given, got a number")
    return [slice(i, min(i + chunk, len(x))) for i in range(0, len(x), chunk)] or [slice(None)]
