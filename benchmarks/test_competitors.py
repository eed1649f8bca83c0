"""Every competitor computes dropout correctly, so the same work is timed.

The rates are checked with Hoeffding's inequality, which holds for every number of elements. With the
bound used here, a correct competitor fails one run in a hundred million.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks import competitors
from fastdrop import cpu
from fastdrop.commands.bench.competitors import Case, Fastdrop, Task, as_array, entered

SIZE = 2**14 + 77
FALSE_ALARM = 1e-8
COMPARED = {"copy", "np.maximum"}  # these drop nothing

everybody = [*competitors.ours(), *competitors.others()]
droppers = [competitor for competitor in everybody if competitor.name not in COMPARED]


def offering(operation):
    chosen = [competitor for competitor in droppers if competitor.offers(Case(operation))]
    return pytest.mark.parametrize("competitor", chosen, ids=lambda competitor: competitor.name)


def prepared(competitor: Any, case: Case) -> tuple[Task, Any]:
    if reason := competitor.missing():
        pytest.skip(reason)
    task = Task(case)
    trial = entered([competitor], task)[competitor.name]
    trial.enter()
    return task, trial.call


def assert_rate(share, count, probability):
    bound = math.sqrt(math.log(2 / FALSE_ALARM) / (2 * count))
    # The coarsest uniforms have 16 bits, which adds this error.
    assert abs(share - probability) <= bound + 2.0**-17


both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@both_dtypes
@offering("forward")
def test_forward_keeps_at_the_rate_and_scales_exactly(competitor, dtype):
    task, call = prepared(competitor, Case("forward", SIZE, dtype, keep_prob=0.25))
    y = as_array(call()).copy()
    assert y.dtype == dtype
    passed = y != 0
    assert not passed[task.x <= 0].any()
    assert np.array_equal(y[passed], 4 * task.x[passed])
    positive = task.x > 0
    assert_rate(passed[positive].mean(), positive.sum(), 0.25)


@offering("forward")
def test_the_next_call_draws_another_mask(competitor):
    task, call = prepared(competitor, Case("forward", SIZE, keep_prob=0.5))
    first = as_array(call()).copy() != 0
    second = as_array(call()) != 0
    positive = task.x > 0
    assert_rate((first & second)[positive].mean(), positive.sum(), 0.25)


@both_dtypes
@offering("backward")
def test_backward_is_the_gradient_of_some_mask(competitor, dtype):
    task, call = prepared(competitor, Case("backward", SIZE, dtype, keep_prob=0.5))
    dx = as_array(call())
    assert dx.dtype == dtype
    passed = dx != 0
    assert not passed[task.x <= 0].any()
    assert np.array_equal(dx[passed], 2 * task.x[passed])
    positive = task.x > 0
    assert_rate(passed[positive].mean(), positive.sum(), 0.5)


@both_dtypes
@offering("predict")
def test_predict_is_the_relu(competitor, dtype):
    task, call = prepared(competitor, Case("predict", SIZE, dtype))
    assert np.array_equal(as_array(call()), np.maximum(task.x, 0))


@pytest.mark.parametrize("keep_prob", [0.5, 0.9])
@offering("mask")
def test_mask_keeps_at_the_rate(competitor, keep_prob):
    _, call = prepared(competitor, Case("mask", SIZE, keep_prob=keep_prob))
    kept = as_array(call()) != 0
    assert kept.shape == (SIZE,)
    assert_rate(kept.mean(), SIZE, keep_prob)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_copy_in_threads_copies_all(threads):
    task, call = prepared(competitors.CopyInThreads(threads), Case(size=SIZE))
    call()
    assert np.array_equal(task.out, task.x)


def test_each_kernel_is_timed_as_itself():
    for isa in cpu.available():
        _, call = prepared(Fastdrop(isa), Case(size=SIZE))
        call()
        assert cpu.active() == isa
