"""The layers. Each is Keras's own layer, whose arguments, checks and configuration it keeps, with another call."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import keras
from keras import ops

from fastdrop.keras.calls import Call

BACKENDS = ("torch", "jax", "tensorflow")


def backend_in_use() -> Any:
    """Return the module for the backend that Keras uses."""
    name = keras.backend.backend()
    if name not in BACKENDS:
        raise ImportError(
            f"fastdrop.keras needs Keras with the backend {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, "
            f"got {name}: set KERAS_BACKEND before you import keras"
        )
    return import_module(f"fastdrop.keras.{name}")


BACKEND = backend_in_use()
registered = keras.saving.register_keras_serializable(package="fastdrop")


def axes_shared(noise_shape: Sequence[int | None] | None, shape: Sequence[int | None]) -> tuple[int, ...]:
    """Return the axes along which elements share one decision.

    A noise shape has None or the input's length where elements have decisions of their own, and 1 where
    they share one. Missing axes are in front, as NumPy broadcasts. TensorFlow may not know a length yet.
    """
    if noise_shape is None:
        return ()
    lengths = (*(1,) * (len(shape) - len(noise_shape)), *noise_shape)
    fit = len(lengths) == len(shape) and all(
        noise in (None, 1) or length in (None, noise) for noise, length in zip(lengths, shape)
    )
    if not fit:
        raise ValueError(
            "noise_shape must have None, 1 or the input's length for each axis of an input with shape "
            f"{tuple(shape)}, got {tuple(noise_shape)}"
        )
    return tuple(axis for axis, noise in enumerate(lengths) if noise == 1 and shape[axis] != 1)


class OnKernels:
    """What the layers have in common: the call."""

    form = "dropout"
    jit_wanted = True

    @property
    def supports_jit(self) -> bool:
        """Whether Keras may compile a model with this layer by XLA or by torch.compile."""
        return self.jit_wanted and BACKEND.CAN_BE_COMPILED

    @supports_jit.setter
    def supports_jit(self, wanted: bool) -> None:
        self.jit_wanted = wanted

    def call(self: Any, inputs: Any, training: bool = False) -> Any:
        """Return the result of training, or of prediction if `training` is False."""
        if not (training and self.rate > 0):
            return self.predicted(inputs)
        if not BACKEND.takes(inputs):
            return self.by_keras(inputs)
        shared = axes_shared(self.noise_shape_for(inputs), inputs.shape)
        if shared and self.form != "alpha_dropout":
            return self.times_noise(self.predicted(inputs), shared)
        return BACKEND.apply(Call(self.form, float(self.rate), shared), inputs, self.seed_generator)

    def times_noise(self: Any, x: Any, shared: tuple[int, ...]) -> Any:
        """Return the result where elements share decisions: few are drawn, and the backend multiplies by them.

        The product is rounded as the kernels round it. They compute 16-bit elements in float32.
        """
        given = keras.backend.standardize_dtype(x.dtype)
        dtype = "float64" if given == "float64" else "float32"
        lengths = [1 if axis in shared else length for axis, length in enumerate(ops.shape(x))]
        noise = BACKEND.apply(Call("dropout", float(self.rate)), ops.ones(lengths, dtype), self.seed_generator)
        return ops.cast(ops.where(noise != 0, ops.cast(x, dtype) * noise, 0.0), given)

    def predicted(self, inputs: Any) -> Any:
        return inputs

    def by_keras(self, inputs: Any) -> Any:
        return super().call(inputs, training=True)  # type: ignore[misc]

    def rematerialized_call(self, layer_call: Any, *arguments: Any, **options: Any) -> Any:
        """Return the call itself: `keras.RematScope` would compute it again with the next seed."""
        return layer_call

    def noise_shape_for(self, inputs: Any) -> Sequence[int | None] | None:
        noise_shape: Sequence[int | None] | None = getattr(self, "noise_shape", None)
        return noise_shape


class OfChannels(OnKernels):
    """Drops whole channels of inputs (samples, ..., channels) or (samples, channels, ...)."""

    def noise_shape_for(self, inputs: Any) -> Sequence[int | None]:
        channels_first = getattr(self, "data_format", "channels_last") == "channels_first"
        ones = (1,) * (len(inputs.shape) - 2)
        return (None, None, *ones) if channels_first else (None, *ones, None)


@registered
class Dropout(OnKernels, keras.layers.Dropout):
    """Dropout of single elements, or of groups that share one decision.

    Computes ``x / (1 - rate)`` for a kept element and 0 for a dropped one. At prediction it returns its input.

    Parameters
    ----------
    rate : float
        The probability that an element is dropped, in [0, 1].
    noise_shape : sequence of int or None, optional
        The shape of the decisions: None or the input's length where elements have decisions of their own,
        1 where they share one.
    seed : int, optional
        The seed of the layer. By default Keras draws one, which `keras.utils.set_random_seed` determines.
    **kwargs
        The arguments of every `keras.layers.Layer`, such as `name` and `dtype`.

    Raises
    ------
    ValueError
        If an argument is not accepted.

    See Also
    --------
    ReLUDropout : ReLU and dropout in one pass.
    keras.layers.Dropout : Keras's own layer.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdrop.keras
    >>> layer = fastdrop.keras.Dropout(0.5, seed=0)
    >>> y = np.asarray(layer(np.ones(1000, np.float32), training=True))
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """


@registered
class ReLUDropout(OnKernels, keras.layers.Dropout):
    """ReLU and then dropout, in one pass over the input.

    Computes ``relu(x) / (1 - rate)`` for a kept element and 0 for a dropped one. At prediction it returns
    ``relu(x)``.

    Parameters
    ----------
    rate : float
        The probability that an element is dropped, in [0, 1].
    noise_shape : sequence of int or None, optional
        The shape of the decisions: None or the input's length where elements have decisions of their own,
        1 where they share one.
    seed : int, optional
        The seed of the layer. By default Keras draws one, which `keras.utils.set_random_seed` determines.
    **kwargs
        The arguments of every `keras.layers.Layer`, such as `name` and `dtype`.

    Raises
    ------
    ValueError
        If an argument is not accepted.

    See Also
    --------
    Dropout : Dropout without the ReLU.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdrop.keras
    >>> layer = fastdrop.keras.ReLUDropout(0.5, seed=0)
    >>> y = np.asarray(layer(np.ones(1000, np.float32), training=True))
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """

    form = "relu_dropout"

    def predicted(self, inputs: Any) -> Any:
        return ops.where(inputs <= 0, ops.zeros_like(inputs), inputs)

    def by_keras(self, inputs: Any) -> Any:
        return super().by_keras(ops.relu(inputs))


@registered
class SpatialDropout1D(OfChannels, keras.layers.SpatialDropout1D):
    """Dropout of whole channels of an input (samples, steps, channels).

    All elements of a channel of a sample share one decision. At prediction it returns its input.

    Parameters
    ----------
    rate : float
        The probability that an element is dropped, in [0, 1].
    seed : int, optional
        The seed of the layer. By default Keras draws one, which `keras.utils.set_random_seed` determines.
    name, dtype : optional
        As in every `keras.layers.Layer`.

    Raises
    ------
    ValueError
        If an argument is not accepted.

    See Also
    --------
    keras.layers.SpatialDropout1D : Keras's own layer.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdrop.keras
    >>> layer = fastdrop.keras.SpatialDropout1D(0.5, seed=0)
    >>> y = np.asarray(layer(np.ones((2, 5, 3), np.float32), training=True))
    >>> bool((y == y[:, :1]).all())
    True
    """


@registered
class SpatialDropout2D(OfChannels, keras.layers.SpatialDropout2D):
    """Dropout of whole channels of an input (samples, rows, columns, channels).

    All elements of a channel of a sample share one decision. At prediction it returns its input.

    Parameters
    ----------
    rate : float
        The probability that an element is dropped, in [0, 1].
    data_format : {"channels_first", "channels_last"}, optional
        Where the channels are. By default it is Keras's `image_data_format`.
    seed : int, optional
        The seed of the layer. By default Keras draws one, which `keras.utils.set_random_seed` determines.
    name, dtype : optional
        As in every `keras.layers.Layer`.

    Raises
    ------
    ValueError
        If an argument is not accepted.

    See Also
    --------
    keras.layers.SpatialDropout2D : Keras's own layer.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdrop.keras
    >>> layer = fastdrop.keras.SpatialDropout2D(0.5, seed=0)
    >>> y = np.asarray(layer(np.ones((2, 4, 4, 3), np.float32), training=True))
    >>> bool((y == y[:, :1, :1]).all())
    True
    """


@registered
class SpatialDropout3D(OfChannels, keras.layers.SpatialDropout3D):
    """Dropout of whole channels of an input (samples, three axes, channels).

    All elements of a channel of a sample share one decision. At prediction it returns its input.

    Parameters
    ----------
    rate : float
        The probability that an element is dropped, in [0, 1].
    data_format : {"channels_first", "channels_last"}, optional
        Where the channels are. By default it is Keras's `image_data_format`.
    seed : int, optional
        The seed of the layer. By default Keras draws one, which `keras.utils.set_random_seed` determines.
    name, dtype : optional
        As in every `keras.layers.Layer`.

    Raises
    ------
    ValueError
        If an argument is not accepted.

    See Also
    --------
    keras.layers.SpatialDropout3D : Keras's own layer.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdrop.keras
    >>> layer = fastdrop.keras.SpatialDropout3D(0.5, seed=0)
    >>> y = np.asarray(layer(np.ones((2, 4, 4, 4, 3), np.float32), training=True))
    >>> bool((y == y[:, :1, :1, :1]).all())
    True
    """


@registered
class GaussianDropout(OnKernels, keras.layers.GaussianDropout):
    """Multiplication by Gaussian noise with mean 1, which drops nothing.

    The noise has the standard deviation ``sqrt(rate / (1 - rate))``. At prediction it returns its input.

    Parameters
    ----------
    rate : float
        The probability that an element is dropped, in [0, 1).
    seed : int, optional
        The seed of the layer. By default Keras draws one, which `keras.utils.set_random_seed` determines.
    **kwargs
        The arguments of every `keras.layers.Layer`, such as `name` and `dtype`.

    Raises
    ------
    ValueError
        If an argument is not accepted.

    See Also
    --------
    keras.layers.GaussianDropout : Keras's own layer.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdrop.keras
    >>> layer = fastdrop.keras.GaussianDropout(0.5, seed=0)
    >>> y = np.asarray(layer(np.ones(1000, np.float32), training=True))
    >>> len(set(y.tolist())) > 900
    True
    """

    form = "gaussian_dropout"

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        if rate == 1:
            raise ValueError(f"rate must be below 1 for noise of finite variance, got {rate}")


@registered
class AlphaDropout(OnKernels, keras.layers.AlphaDropout):
    """Dropout that keeps mean and variance, for networks with SELU.

    A dropped element becomes the negative limit of SELU, and an affine map restores mean and variance. At
    prediction it returns its input.

    Parameters
    ----------
    rate : float
        The probability that an element is dropped, in [0, 1].
    noise_shape : sequence of int or None, optional
        The shape of the decisions: None or the input's length where elements have decisions of their own,
        1 where they share one.
    seed : int, optional
        The seed of the layer. By default Keras draws one, which `keras.utils.set_random_seed` determines.
    **kwargs
        The arguments of every `keras.layers.Layer`, such as `name` and `dtype`.

    Raises
    ------
    ValueError
        If an argument is not accepted.

    See Also
    --------
    keras.layers.AlphaDropout : Keras's own layer.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdrop.keras
    >>> layer = fastdrop.keras.AlphaDropout(0.5, seed=0)
    >>> y = np.asarray(layer(np.ones(1000, np.float32), training=True))
    >>> len(set(y.tolist()))
    2
    """

    form = "alpha_dropout"
