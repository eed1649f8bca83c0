"""The Dask calls give what the NumPy call gives on the whole array, for any chunks, workers and order."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

da = pytest.importorskip("dask.array", reason="Dask is an optional dependency")

import dask  # noqa: E402
import ml_dtypes  # noqa: E402
from dask.array.utils import assert_eq  # noqa: E402
from dask.base import tokenize  # noqa: E402

import fastdrop as fd  # noqa: E402
import fastdrop.dask as fdask  # noqa: E402
from support import HANGING, MODES, assert_identical  # noqa: E402

CHUNKINGS = [
    ((50,), (7,)), ((50,), ((1, 0, 49),)), ((6, 300), (4, 129)), ((6, 300), (6, 300)),
    ((3, 4, 50), (2, 3, 17)),
    ((2, 3, 4, 5), (1, 2, 3, 2)), ((), ()), ((0, 4), (1, 2)), ((1, 1), (1, 1)),
]  # fmt: skip


def values(shape, dtype=np.float32):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def check(lazy, expected):
    """Assert that a result is what was expected, bit for bit, and all that it declares."""
    # Dask's own: dtype with its byte order, shape and chunks of each block, meta, and a graph that holds together.
    assert_eq(lazy, expected, scheduler="sync")
    result = lazy.compute(scheduler="sync")
    assert type(result) is type(lazy._meta) is np.ndarray
    assert result.dtype is lazy.dtype or result.dtype == lazy.dtype == lazy._meta.dtype
    assert_identical(result, expected)


@pytest.mark.parametrize("form", ["dropout", "relu_dropout"])
@pytest.mark.parametrize(("shape", "chunks"), CHUNKINGS, ids=str)
def test_chunks_change_nothing(form, shape, chunks):
    x, dy = values(shape), values(shape) + 2
    y, draws = getattr(fdask, form)(da.from_array(x, chunks=chunks), keep_prob=0.7, rng=fd.Stream(3, 1000))
    expected, mask = getattr(fd, form)(x, keep_prob=0.7, rng=fd.Stream(3, 1000))
    lazy = da.from_array(dy, chunks=chunks)
    saved = (draws,) if form == "dropout" else (y, draws)
    dx = getattr(fdask, f"{form}_backward")(lazy, *saved)
    check(y, expected)
    check(dx, getattr(fd, f"{form}_backward")(dy, mask))


@pytest.mark.parametrize(("shape", "chunks"), CHUNKINGS, ids=str)
def test_the_mask_alone(shape, chunks):
    mask = fdask.keep_mask(shape, keep_prob=0.7, chunks=chunks, rng=9)
    check(mask, fd.keep_mask(shape, keep_prob=0.7, rng=9).to_array())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
def test_dtypes_and_modes(dtype, mode):
    x = values((40, 70), dtype)
    y, _ = fdask.relu_dropout(da.from_array(x, chunks=(9, 33)), keep_prob=0.6, mode=mode, rng=2)
    assert y.dtype == dtype
    check(y, fd.relu_dropout(x, keep_prob=0.6, mode=mode, rng=2)[0])


@pytest.mark.parametrize("form", ["dropout", "relu_dropout"])
@pytest.mark.parametrize("broadcast_dims", [(), 1, (0, -1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("bias_chunks", [None, 7, 30])
def test_a_bias_and_shared_draws(form, broadcast_dims, bias_chunks):
    x, bias, dy = values((6, 20, 30)), values(30), values((6, 20, 30)) + 2
    stream, lazy_stream = fd.Stream(3, 1000), fd.Stream(3, 1000)
    lazy_bias = bias if bias_chunks is None else da.from_array(bias, chunks=bias_chunks)
    lazy, options = da.from_array(x, chunks=(4, 7, 9)), {"broadcast_dims": broadcast_dims}
    y, draws = getattr(fdask, form)(lazy, keep_prob=0.7, bias=lazy_bias, rng=lazy_stream, **options)
    expected, mask = getattr(fd, form)(x, keep_prob=0.7, bias=bias, rng=stream, **options)
    assert lazy_stream.offset == stream.offset
    check(y, expected)
    saved = (draws,) if form == "dropout" else (y, draws)
    dx = getattr(fdask, f"{form}_backward")(da.from_array(dy, chunks=(4, 7, 9)), *saved)
    check(dx, getattr(fd, f"{form}_backward")(dy, mask))


def test_the_gradient_may_come_in_other_chunks():
    x = values((20, 30))
    y, draws = fdask.relu_dropout(da.from_array(x, chunks=(7, 8)), keep_prob=0.5, rng=2)
    dx = fdask.relu_dropout_backward(da.ones((20, 30), chunks=(20, 5), dtype=np.float32), y, draws)
    _, mask = fd.relu_dropout(x, keep_prob=0.5, rng=2)
    check(dx, fd.relu_dropout_backward(np.ones_like(x), mask))


def test_the_stream_moves_when_the_graph_is_made_and_not_when_it_is_computed():
    stream = fd.Stream(1)
    y, _ = fdask.dropout(da.ones((10, 10), chunks=3), keep_prob=0.5, rng=stream)
    assert stream.offset == 100
    check(y, y.compute())
    assert stream.offset == 100


def test_errors_come_when_the_graph_is_made_and_leave_the_stream():
    stream, x = fd.Stream(1), da.ones(10, chunks=5)
    with pytest.raises(ValueError, match="keep_prob must be in"):
        fdask.dropout(x, keep_prob=1.5, rng=stream)
    with pytest.raises(ValueError, match="mode must be"):
        fdask.dropout(x, keep_prob=0.5, mode="other", rng=stream)
    with pytest.raises(TypeError, match="x must have dtype float32"):
        fdask.dropout(x.astype(int), keep_prob=0.5, rng=stream)
    with pytest.raises(TypeError, match=r"x must be a dask.array.Array, got ndarray"):
        fdask.dropout(np.ones(3), keep_prob=0.5, rng=stream)
    with pytest.raises(ValueError, match="known sizes"):
        fdask.dropout(x[x > 0], keep_prob=0.5, rng=stream)
    with pytest.raises(TypeError, match="bias must have the input's dtype float64, got float32"):
        fdask.dropout(x, keep_prob=0.5, bias=np.ones(10, np.float32), rng=stream)
    with pytest.raises(ValueError, match="bias must have the length of the input's last axis"):
        fdask.dropout(x, keep_prob=0.5, bias=da.ones(9, chunks=5), rng=stream)
    with pytest.raises(ValueError, match="broadcast_dims: axis 1 is out of bounds for array of dimension 1"):
        fdask.dropout(x, keep_prob=0.5, broadcast_dims=1, rng=stream)
    assert stream.offset == 0
    _, draws = fdask.dropout(x, keep_prob=0.5, rng=stream)
    with pytest.raises(ValueError, match="dy must have the forward call's shape"):
        fdask.dropout_backward(da.ones(11, chunks=5), draws)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rate": 0.1}, "no argument 'rate': pass keep_prob, the probability that an element is kept"),
        ({"keep_prob": 0.9, "seed": 1}, "no argument 'seed': pass rng"),
        ({"keep_prob": 0.9, "training": False}, "call {0} in training and {0}_predict at prediction"),
        ({"keep_prob": 0.9, "noise_shape": 1}, "pass broadcast_dims"),
        ({}, "needs keep_prob"),
    ],
)
@pytest.mark.parametrize("form", ["dropout", "relu_dropout"])
def test_a_wrong_word_is_told_the_right_one(form, arguments, says):
    with pytest.raises(TypeError, match=says.format(form)):
        getattr(fdask, form)(da.ones(3), **arguments)
    with pytest.raises(TypeError, match=rf"such as {form}\(x, keep_prob=0.9, rng=0\)"):
        getattr(fdask, form)(da.ones(3), 0.9)


@pytest.mark.parametrize("form", ["dropout", "relu_dropout"])
@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
def test_prediction(form, mode):
    x = values((20, 30))
    for bias in (None, values(30)):
        y = getattr(fdask, f"{form}_predict")(da.from_array(x, chunks=(7, 8)), keep_prob=0.6, bias=bias, mode=mode)
        check(y, getattr(fd, f"{form}_predict")(x, keep_prob=0.6, bias=bias, mode=mode))


def test_a_gradient_of_another_dtype_is_refused_when_the_graph_is_made():
    x = da.ones((6, 6), chunks=4, dtype=np.float32)
    y, draws = fdask.relu_dropout(x, keep_prob=0.5)
    with pytest.raises(TypeError, match="dy must have y's dtype float32, got float64"):
        fdask.relu_dropout_backward(x.astype(float), y, draws)
    with pytest.raises(TypeError, match=r"dy must have dtype .*, got int64"):
        fdask.dropout_backward(x.astype(int), draws)


def test_equal_seeds_give_equal_names_and_others_do_not():
    x = da.ones((6, 6), chunks=4)
    names = [fdask.dropout(x, keep_prob=0.5, rng=fd.Stream(*place))[0].name for place in [(1,), (1,), (2,), (1, 36)]]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert tokenize(fdask.dropout(x, keep_prob=0.5, rng=1)[1]) == tokenize(fdask.dropout(x, keep_prob=0.5, rng=1)[1])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_what_is_persisted_is_what_is_computed_later(scheduler):
    x = values((40, 70))
    y, draws = fdask.relu_dropout(da.from_array(x, chunks=(9, 33)), keep_prob=0.6, rng=2)
    kept = y.persist(scheduler=scheduler)
    expected, mask = fd.relu_dropout(x, keep_prob=0.6, rng=2)
    check(kept, expected)
    assert np.array_equal(y.compute(scheduler=scheduler), expected)
    dx = fdask.relu_dropout_backward(da.ones_like(kept), kept, draws)
    check(dx, fd.relu_dropout_backward(np.ones_like(x), mask))


@pytest.fixture
def quick_processes():
    """Fork the workers from a process that has imported Dask once, and not start Python for each."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


def at_second_sight(block, folder, block_info=None):
    """Return the block, but raise an error the first time that it is requested."""
    flag = folder / str(block_info[0]["chunk-location"])
    if not flag.exists():
        flag.touch()
        raise OSError("a disk that fails once")
    return block


def test_a_task_that_fails_is_run_again_to_the_same_bits(tmp_path):
    distributed = pytest.importorskip("distributed", reason="distributed is an optional dependency")
    x = values((64, 500))
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0", silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        y, _ = fdask.relu_dropout(da.from_array(x, chunks=(32, 250)), keep_prob=0.8, rng=11)
        flaky = y.map_blocks(at_second_sight, folder=tmp_path, dtype=y.dtype, meta=y._meta)
        again = client.compute(flaky, retries=1).result(timeout=HANGING)
    assert len(list(tmp_path.iterdir())) == y.npartitions, "every block has failed once"
    assert np.array_equal(again, fd.relu_dropout(x, keep_prob=0.8, rng=11)[0])


def held(block, folder):
    """Return the block once the file `go` exists; until then a file names the process that holds it."""
    (folder / f"held by {os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return block


def test_processes_two_of_which_are_killed(tmp_path, quick_processes):
    """Two of three workers are killed in the middle of their work, and the third repeats it."""
    distributed = pytest.importorskip("distributed", reason="distributed is an optional dependency")
    x = values((64, 500))
    expected = fd.relu_dropout(x, keep_prob=0.8, rng=11)[0]
    cluster = distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        blocks = da.from_array(x, chunks=(16, 250)).map_blocks(held, folder=tmp_path, meta=x[:0])
        y, _ = fdask.relu_dropout(blocks, keep_prob=0.8, rng=11)
        future = client.compute(y)
        while len(holding := list(tmp_path.iterdir())) < 3:
            time.sleep(0.01)
        for one in holding[:2]:
            os.kill(int(one.name.split()[-1]), signal.SIGKILL)
        (tmp_path / "go").touch()
        assert_identical(future.result(timeout=HANGING), expected)


# --- what an array declares -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", ">f2"])
def test_results_are_declared_in_the_byte_order_that_they_have(dtype):
    """A view of a result, which Dask computes from the declared dtype, has the right numbers."""
    x, bias = values((6, 30)).astype(dtype), values(30).astype(dtype)
    lazy = da.from_array(x, chunks=(4, 7))
    y, draws = fdask.relu_dropout(lazy, keep_prob=0.6, bias=da.from_array(bias, chunks=5), rng=3)
    expected, mask = fd.relu_dropout(x, keep_prob=0.6, bias=bias, rng=3)
    check(y, expected)
    check(y.view(f"u{x.itemsize}"), expected.view(f"u{x.itemsize}"))
    dx = fdask.relu_dropout_backward(lazy, y, draws)
    check(dx, fd.relu_dropout_backward(x, mask))
    check(fdask.relu_dropout_backward(lazy, y.astype(dtype), draws), fd.relu_dropout_backward(x, mask))
    plain, draws = fdask.dropout(lazy, keep_prob=0.6, rng=3)
    check(plain, fd.dropout(x, keep_prob=0.6, rng=3)[0])
    check(fdask.dropout_backward(lazy, draws), fd.dropout(x, keep_prob=0.6, rng=3)[0])
    check(fdask.dropout_predict(lazy, keep_prob=0.6), fd.dropout_predict(x, keep_prob=0.6))


def test_other_kinds_of_ndarrays_come_back_as_plain_ones(tmp_path):
    x = values((8, 30))
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[:] = x
    expected = fd.dropout(x, keep_prob=0.5, rng=1)[0]
    for array in (mapped, x.view(np.matrix), x.view(np.recarray)):
        lazy = da.from_array(array, chunks=(3, 7), asarray=False)
        check(fdask.dropout(lazy, keep_prob=0.5, rng=1)[0], expected)


def test_draws_of_the_other_form_are_refused():
    """A gradient without the ReLU of the forward call would be wrong in silence."""
    x = da.ones((4, 6), chunks=2, dtype="float32")
    y, of_relu = fdask.relu_dropout(x, keep_prob=0.5, rng=7)
    _, of_dropout = fdask.dropout(x, keep_prob=0.5, rng=7)
    with pytest.raises(ValueError, match="draws must come from dropout, got those of relu_dropout"):
        fdask.dropout_backward(x, of_relu)
    with pytest.raises(ValueError, match="draws must come from relu_dropout, got those of dropout"):
        fdask.relu_dropout_backward(x, y, of_dropout)


def test_wrong_chunks_name_themselves_and_move_no_stream():
    stream = fd.Stream(3)
    with pytest.raises(ValueError, match=r"chunks must fit an array of shape \(5, 5\), got \(99, \(1, 2\)\)"):
        fdask.keep_mask((5, 5), keep_prob=0.5, chunks=(99, (1, 2)), rng=stream)
    assert stream.offset == 0


def test_masked_chunks_are_refused():
    """The declared meta shows them when the graph is made; a chunk that is masked all the same, when computed."""
    x = values((8, 30))
    masked = da.ma.masked_less(da.from_array(x, chunks=(3, 7)), 0)
    for call in (
        lambda: fdask.dropout(masked, keep_prob=0.5),
        lambda: fdask.relu_dropout_predict(masked, keep_prob=0.5),
        lambda: fdask.dropout(da.ones((8, 30), np.float32), keep_prob=0.5, bias=masked[0]),
        lambda: fdask.dropout(da.ones((8, 30), np.float32), keep_prob=0.5, bias=np.ma.ones(30, np.float32)),
    ):
        with pytest.raises(TypeError, match="must not be a masked array, because its mask would be lost"):
            call()
    undeclared = da.from_array(x, chunks=(3, 7)).map_blocks(np.ma.asarray, dtype=x.dtype, meta=x[:0])
    lazy, _ = fdask.dropout(undeclared, keep_prob=0.5)
    with pytest.raises(TypeError, match="must not be a masked array"):
        lazy.compute(scheduler="sync")
    check(fdask.dropout(da.ma.filled(masked, 0), keep_prob=0.5, rng=1)[0],
          fd.dropout(np.where(x < 0, 0, x).astype(x.dtype), keep_prob=0.5, rng=1)[0])  # fmt: skip


@pytest.mark.parametrize("wrong", [np.float64, lambda block: block[:-1], np.transpose], ids=["dtype", "shape", "axes"])
def test_chunks_that_are_not_what_their_array_declares_are_refused(wrong):
    """They would be computed at places of other chunks, or come back as an array of another dtype."""
    blocks = da.from_array(values((6, 30)), chunks=(3, 7)).map_blocks(wrong, dtype=np.float32, meta=values((0, 0)))
    ones = da.ones((6, 30), dtype=np.float32)
    for lazy in (
        fdask.dropout(blocks, keep_prob=0.5)[0],
        fdask.relu_dropout_predict(blocks, keep_prob=0.5),
        fdask.relu_dropout_backward(ones, blocks, fdask.relu_dropout(ones, keep_prob=0.5)[1]),
        fdask.dropout_backward(blocks, fdask.dropout(ones, keep_prob=0.5)[1]),
    ):
        with pytest.raises(ValueError, match=r"a chunk must have the shape .* and the dtype float32 .* declares, got"):
            lazy.compute(scheduler="sync")


def test_chunks_of_unknown_sizes_are_refused_and_can_be_made_known():
    x = values(40)
    lazy = da.from_array(x, chunks=7)
    unknown = lazy[lazy > 0]
    y, draws = fdask.relu_dropout(lazy[:20], keep_prob=0.5)
    for call in (
        lambda: fdask.dropout(unknown, keep_prob=0.5),
        lambda: fdask.dropout_predict(unknown, keep_prob=0.5),
        lambda: fdask.dropout(lazy, keep_prob=0.5, bias=unknown),
        lambda: fdask.dropout_backward(unknown, draws),
        lambda: fdask.relu_dropout_backward(unknown, y, draws),
        lambda: fdask.relu_dropout_backward(y, unknown, draws),
    ):
        with pytest.raises(ValueError, match=r"must have chunks of known sizes, .*: call compute_chunk_sizes\(\)"):
            call()
    check(fdask.dropout(unknown.compute_chunk_sizes(), keep_prob=0.5, rng=3)[0],
          fd.dropout(x[x > 0], keep_prob=0.5, rng=3)[0])  # fmt: skip


# --- whole calls ------------------------------------------------------------------------------


def drawn_chunks(rng, shape):
    """Return lengths of chunks for each axis, drawn at random; some are empty."""
    cuts = [np.sort(rng.integers(0, length + 1, rng.integers(0, 4))) for length in shape]
    return tuple(tuple(map(int, np.diff([0, *cut, length]))) for cut, length in zip(cuts, shape))


@pytest.mark.parametrize("case", range(40))
def test_whole_calls_drawn_at_random(case):
    rng = np.random.default_rng(case)
    form = str(rng.choice(["dropout", "relu_dropout"]))
    dtype = np.dtype(rng.choice(["f2", "f4", "f8", ">f4", ">f8"])) if case % 6 else np.dtype(ml_dtypes.bfloat16)
    shape = tuple(map(int, rng.integers(0 if case % 10 == 0 else 1, 14, rng.integers(0, 5))))
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    lazy, lazy_dy = (da.from_array(array, chunks=drawn_chunks(rng, shape)) for array in (x, dy))
    bias = rng.standard_normal(shape[-1]).astype(dtype) if shape and rng.random() < 0.5 else None
    settings = {"keep_prob": float(rng.choice([0.0, 1.0, rng.random()])), "mode": str(rng.choice(MODES))}
    shared = tuple(map(int, np.flatnonzero(rng.random(len(shape)) < 0.3)))
    place = int(rng.integers(2**62)), int(rng.integers(2**40))

    stream, lazy_stream = fd.Stream(*place), fd.Stream(*place)
    lazy_bias = bias if bias is None or rng.random() < 0.5 else da.from_array(bias, chunks=3)
    y, draws = getattr(fdask, form)(lazy, bias=lazy_bias, broadcast_dims=shared, rng=lazy_stream, **settings)
    expected, mask = getattr(fd, form)(x, bias=bias, broadcast_dims=shared, rng=stream, **settings)
    assert lazy_stream.offset == stream.offset
    check(y, expected)
    saved, fitting = ((draws,), (mask,)) if form == "dropout" else ((y, draws), (expected,))
    options = {} if form == "dropout" else settings
    dx = getattr(fdask, f"{form}_backward")(lazy_dy, *saved)
    check(dx, getattr(fd, f"{form}_backward")(dy, *fitting, **options))
    check(getattr(fdask, f"{form}_predict")(lazy, bias=lazy_bias, **settings),
          getattr(fd, f"{form}_predict")(x, bias=bias, **settings))  # fmt: skip
