"""Monte Carlo dropout: the spread of predictions under dropout measures a network's uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop.checks import at_least_one, integer
from fastdrop.foreign import base_array
from fastdrop.formulas import POSITIONS
from fastdrop.progress import progress as progress_bar
from fastdrop.stream import RNG, Stream, StreamRows, as_stream, sample_stream
from fastdrop.usage import explained

STRETCH = 2**40  # the positions per sample by default: enough for a million layers of a million units


@dataclass(frozen=True, eq=False)
class MonteCarlo:
    """The result of `mc_predict`.

    Attributes
    ----------
    mean : ndarray of float64 or complex128, shape of a prediction
        The mean of the predictions.
    variance : ndarray of float64, shape of a prediction
        The unbiased variance of the predictions (divided by ``count - 1``); NaN for one sample. For
        complex predictions it is ``E |z - mean|**2``, a real number.
    samples : ndarray or None
        The predictions, one per index of the first axis, if `mc_predict` was told to keep them.
    count : int
        The number of samples.
    seed, offset, stretch : int
        Sample ``k`` used the positions from ``offset + k * stretch`` on, of the stream with this seed.
        No two samples spawn the same streams.

    See Also
    --------
    mc_predict : The call that returns it.

    References
    ----------
    Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in
    deep learning", ICML, 2016.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> def predict(x, stream):
    ...     return fd.dropout(x, keep_prob=0.5, rng=stream)[0]
    >>> result = fd.mc_predict(predict, np.ones(4), samples=3, rng=1, keep_samples=True)
    >>> bool((predict(np.ones(4), result.stream(2)) == result.samples[2]).all())
    True
    """

    mean: NDArray[Any]
    variance: NDArray[np.float64]
    samples: NDArray[Any] | None
    count: int
    seed: int
    offset: int
    stretch: int
    _prefix: tuple[int, ...] = field(default=(), repr=False)  # the beginning of the stream's spawn keys

    def stream(self, sample: int) -> Stream:
        """Return the stream of a sample: ``predict(x, result.stream(k))`` is sample ``k`` again.

        Parameters
        ----------
        sample : int
            The number of the sample, ``0 <= sample < count``.

        Returns
        -------
        Stream

        Raises
        ------
        TypeError
            If `sample` is not an int.
        IndexError
            If there is no such sample.
        """
        number = integer("sample", sample)
        if not 0 <= number < self.count:
            raise IndexError(f"sample must be in [0, {self.count}), got {sample!r}")
        return sample_stream(self.seed, self.offset + number * self.stretch, self._prefix)


MonteCarlo.__annotations__.update(get_type_hints(MonteCarlo))  # as types, whose names are of this file
MonteCarlo.__module__ = "fastdrop"  # pickles name this module, so this file can move


@explained
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
    """Compute the mean and variance of predictions with dropout left on.

    Each sample is the prediction of one thinned network, and has its own positions of the stream.
    Sample ``k`` therefore does not depend on the number of samples, and can be computed again alone.

    Parameters
    ----------
    predict : callable
        ``predict(x, stream)`` returns the output of the network with dropout. It passes `stream` as
        ``rng=`` to every call that drops, in the same order each time. It may copy the stream, set it
        back, and spawn others, which differ from sample to sample. It may write each result to the
        same array, because the results are copied.
    x : array_like
        The inputs; the first axis counts the examples. Each sample gets a copy, which `predict` may
        write to.
    samples : int
        The number of predictions, at least 1.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. None takes fresh entropy. An int ``0 <= rng < 2**128`` or a
        SeedSequence gives the same result at every call. One seed is drawn from a Generator. A
        `Stream` advances by ``samples * stretch`` positions.
    keep_samples : bool, default False
        Whether to keep every prediction. Without it, memory does not grow with `samples`.
    chunk : int, optional
        The number of examples to predict at a time, which bounds the memory that `predict` takes. By
        default all are predicted at once. The masks are the same: the first axis of every input of
        dropout, and of the result, must count the examples, as in `x`; otherwise the call is refused.
        `stream` then stands for the rows of the chunk. It has no seed and makes no tiles. Leave
        `chunk` out if dropout is applied to an array with another meaning of the first axis, such as
        weights, that could happen to have as many rows as a chunk. A matrix product in `predict` may
        round a few rows differently from all rows.
    stretch : int, default 2**40
        The number of positions that a sample may use, over all chunks. Using more is an error.
    progress : bool, default False
        Whether to show a bar on standard error. It needs rich and a terminal.

    Returns
    -------
    MonteCarlo
        The mean, the variance and, with `keep_samples`, the predictions.

    Raises
    ------
    TypeError
        If an argument has a type that is not accepted, or the results are not numbers.
    ValueError
        If a number is out of range, the stream has too few positions left, `predict` uses more
        positions than `stretch`, or its results differ in shape.

    See Also
    --------
    MonteCarlo : The result.
    Stream : A source of randomness that advances from call to call.

    Notes
    -----
    The positions of all samples are reserved first, and stay reserved if `predict` raises.

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
    ...     return fd.dropout(x, keep_prob=0.5, rng=stream)[0] @ weights
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
    """The mean and variance of arrays that are added one by one."""

    def __init__(self) -> None:
        self.count: int = 0
        self.mean: Any = np.float64(0)
        self.squares: Any = np.float64(0)

    def add(self, sample: NDArray[Any]) -> None:
        if self.count and sample.shape != self.mean.shape:
            raise ValueError(
                f"predict must give the same shape each time, {self.mean.shape}, got {sample.shape}"
            )
        self.count += 1
        # Infinities have a mean, and their variance is NaN. That of large numbers is infinite.
        with np.errstate(invalid="ignore", over="ignore"):
            deviation, self.mean = sample - self.mean, self.mean_with(sample)
            self.squares = self.squares + (np.conj(deviation) * (sample - self.mean)).real

    def mean_with(self, sample: NDArray[Any]) -> Any:
        """Return the mean of all samples, the last of which is `sample`."""
        if not np.iscomplexobj(sample) and not np.iscomplexobj(self.mean):
            return mean_after(self.mean, sample, self.count)
        mean = np.empty(sample.shape, np.complex128)
        mean.real = mean_after(self.mean.real, sample.real, self.count)
        mean.imag = mean_after(self.mean.imag, sample.imag, self.count)
        return mean[()]

    def variance(self) -> NDArray[np.float64]:
        if self.count > 1:
            return self.squares / (self.count - 1)
        return np.full_like(self.mean.real, np.nan)


def mean_after(mean: Any, sample: NDArray[Any], count: int) -> Any:
    """Return the mean of `count` numbers, the last of which is `sample`, from the mean of the others."""
    finite = np.isfinite(mean) & np.isfinite(sample)
    step = (sample - mean) / count
    step = np.where(np.isfinite(step), step, sample / count - mean / count)  # a difference of large numbers overflows
    return np.where(finite, mean + step, mean + sample)[()]


def one_sample(
    predict: Callable[[Any, Any], ArrayLike],
    x: NDArray[Any],
    rows: list[slice],
    stream: Stream,
    stretch: int,
) -> NDArray[Any]:
    """Return a prediction for all of `x`, computed chunk by chunk."""
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
    """Return a copy of a prediction, because `predict` may use the memory again."""
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
