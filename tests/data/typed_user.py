"""This file uses everything public as a typed user program does: `mypy --strict` must pass on it.

`assert_type` states what a type checker has to infer. The file also runs.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import fastdrop as fd
from fastdrop import layers, reference

F32: TypeAlias = NDArray[np.float32]
Computed: TypeAlias = NDArray[Any]  # of the dtype of the input

x: F32 = np.ones((4, 8), np.float32)
bias: F32 = np.ones(8, np.float32)
out: F32 = np.empty_like(x)


def calls() -> None:
    y, mask = fd.relu_dropout(x, keep_prob=0.9, bias=bias, mode="vanilla", rng=1, out=out)
    assert_type(y, Computed)
    assert_type(mask, fd.Mask)
    assert_type(fd.relu_dropout(x, keep_prob=0.9, return_mask=False), Computed)
    assert_type(fd.relu_dropout_backward(y, mask), Computed)
    assert_type(fd.relu_dropout_backward(y, mask, bias_grad=True), tuple[Computed, Computed])
    assert_type(fd.relu_dropout_backward(y, y, keep_prob=0.9, mode="inverted"), Computed)
    assert_type(fd.relu_dropout_predict(x, keep_prob=0.9, bias=bias), Computed)
    assert_type(fd.dropout(x, keep_prob=0.9, broadcast_dims=(0, 1)), tuple[Computed, fd.Mask])
    assert_type(fd.dropout_backward(x, fd.dropout(x, keep_prob=0.9)[1], bias_grad=True), tuple[Computed, Computed])
    assert_type(fd.dropout_predict(x, keep_prob=0.9), Computed)


def other_forms() -> None:
    y, mask = fd.dropout_add(x, x, keep_prob=0.9, bias=bias, broadcast_dims=0)
    assert_type(fd.dropout_add_backward(y, mask), Computed)
    assert_type(fd.dropout_add_predict(x, x, keep_prob=0.9), Computed)
    y, mask = fd.alpha_dropout(x, keep_prob=0.9, rng=np.random.SeedSequence(1))
    assert_type(fd.alpha_dropout_backward(y, mask), Computed)
    y, noise = fd.gaussian_dropout(x, keep_prob=0.9, rng=np.random.default_rng(1))
    assert_type(noise, fd.GaussianNoise)
    assert_type(fd.gaussian_dropout_backward(y, noise), Computed)
    assert_type(noise.to_array(), F32)


def from_lists() -> None:
    assert_type(fd.dropout([1.0, 2.0], keep_prob=0.5), tuple[Computed, fd.Mask])
    assert_type(fd.dropout_predict([1.0, 2.0], keep_prob=0.5), Computed)


def streams_and_masks() -> None:
    stream = fd.Stream(42, offset=3)
    assert_type(stream.reserve(8), int)
    assert_type(stream.spawn(2), list[fd.Stream])
    tile = stream.tile((8, 8), (0, 0))
    assert_type(tile, fd.Tile)
    mask = fd.keep_mask((4, 8), keep_prob=0.9, rng=tile)
    assert_type(mask.to_array(), NDArray[np.bool_])
    assert_type(mask.bits, NDArray[np.uint8])
    assert_type(mask.keep_prob, float)
    assert_type(fd.Mask.from_array([True, False], keep_prob=0.5), fd.Mask)


def layers_with_state() -> None:
    for layer in (
        layers.Dropout(keep_prob=0.9, rng=fd.Stream(1)),
        layers.ReLUDropout(keep_prob=0.9, mode="vanilla"),
        layers.AlphaDropout(keep_prob=0.9),
        layers.GaussianDropout(keep_prob=0.9),
    ):
        layer.train()
        layer.backward(layer(x), out=out)
        layer.eval()(x)
    add = layers.DropoutAdd(keep_prob=0.9)
    add.backward(add(x, x))


def monte_carlo() -> None:
    def predict(x: F32, rng: fd.Stream) -> F32:
        return fd.dropout(x, keep_prob=0.9, rng=rng, return_mask=False)

    result = fd.mc_predict(predict, x, 4, rng=1)
    assert_type(result, fd.MonteCarlo)
    assert_type(result.variance, NDArray[np.float64])


def the_rest() -> None:
    fd.set_num_threads(fd.get_num_threads())
    assert_type(fd.cpu.active(), str)
    assert_type(fd.get_include(), str)
    assert_type(fd.__version__, str)
    assert_type(reference.relu_dropout_predict(x), Computed)


for use in (calls, other_forms, from_lists, streams_and_masks, layers_with_state, monte_carlo, the_rest):
    use()
