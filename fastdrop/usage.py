"""The error for a call whose arguments do not fit the function: it names the right word.

Python's own error says that a keyword is unexpected. People who know dropout from another library need to
hear which one is meant. Nothing here runs in a call whose arguments fit.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

KEEP_PROB = "keep_prob, the probability that an element is kept (a dropout rate r is keep_prob = 1 - r)"
RATE = "rate, the probability that an element is dropped (a keep probability k is rate = 1 - k)"
RNG = "rng, an int, a numpy.random.Generator or a fastdrop.Stream"
DIMS = "broadcast_dims, the axes along which elements share one decision (where noise_shape has length 1)"
RIGHT_WORDS = {
    "keep_prob": (KEEP_PROB, "p q rate drop drop_prob drop_rate dropout_rate prob probability keep"),
    "rate": (RATE, "keep_prob p q drop drop_prob drop_rate dropout dropout_rate prob probability keep"),
    "rng": (RNG, "seed random_state generator key stream random_seed"),
    "key": ("key, a key of jax.random", "rng rngs seed random_state generator prng_key stream random_seed"),
    "samples": ("samples, the number of predictions", "n n_samples num_samples sample repeats T"),
    "progress": ("progress=True to see a bar", "verbose"),
    "broadcast_dims": (DIMS, "noise_shape axis axes dims dim"),
    "out": ("out, the array to write the result to (out=x works in place)", "inplace"),
    "return_mask": ("return_mask, which is False where y alone is wanted", "mask saved"),
    "x": ("x, by position", "input inputs a X data array"),
    "dy": ("dy, by position", "grad grad_output gradient dout"),
}
MODES = ("training", "train", "is_training", "deterministic", "inference")
EXAMPLE = {"keep_prob": "keep_prob=0.9", "rng": "rng=0", "key": "key=jax.random.key(0)"}


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Let a Python function explain which arguments it needs, where those of a call do not fit."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError:
            wrong = wrong_call(function, args, kwargs)
            if wrong is None:
                raise
        raise TypeError(wrong)

    return call


def wrong_call(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the arguments of a call, or None where they fit the function."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        pythons_own = str(error)
    else:
        return None
    name, parameters = function.__name__, [*signature.parameters.values()]
    if args and parameters and parameters[0].name == "self":
        name, parameters, args = name_of_method(name, type(args[0])), parameters[1:], args[1:]
    words = [parameter.name for parameter in parameters]
    positional = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    for word in kwargs:
        if word not in words:
            return f"{name}() has no argument {word!r}: {advice(function, name, word, words)}"
    if len(args) > len(positional):
        taken = f"{len(positional)} positional argument{'s' * (len(positional) != 1)}"
        return (
            f"{name}() takes {taken} ({', '.join(positional)}), got {len(args)}: pass the others by keyword, "
            f"such as {example(name, positional, words)}"
        )
    given = {*positional[: len(args)], *kwargs}
    missing = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.name not in given]
    if missing == ["keep_prob"]:
        return f"{name}() needs {KEEP_PROB}: {example(name, positional, words)}"
    return f"{name}() needs {' and '.join(missing)}" if missing else f"{name}() has {pythons_own}"


def name_of_method(name: str, kind: type) -> str:
    """Return the name by which a method is called."""
    return kind.__name__ if name in ("__init__", "__call__") else f"{kind.__name__}.{name}"


def advice(function: Any, name: str, word: str, words: list[str]) -> str:
    """Return the sentence that tells the right word for a wrong one."""
    for right, (what, wrong_words) in RIGHT_WORDS.items():
        if word in wrong_words.split() and right in words:
            return f"pass {what}"
    if name.endswith("_predict") and word in ("rng", "seed", "return_mask"):
        return "a prediction draws nothing"
    return (word in MODES and instead_of_a_mode(function, name, words)) or f"it accepts {', '.join(words)}"


def instead_of_a_mode(function: Any, name: str, words: list[str]) -> str:
    """Return what to do at prediction, or "" for a function that means the same in training."""
    if name[0].isupper():
        return "a layer is in training until its eval() is called, and again after its train()"
    if not {"rng", "key"}.intersection(words) or name.endswith("mask"):
        return ""
    if hasattr(sys.modules.get(function.__module__), f"{name}_predict"):
        return f"call {name} in training and {name}_predict at prediction"
    alone = "relu(x)" if name.startswith("relu") else "x itself"
    return f"call {name} in training, and use {alone} at prediction"


def example(name: str, positional: list[str], words: list[str]) -> str:
    """Return a call with the arguments by position and the usual keywords."""
    return f"{name}({', '.join([*positional, *(EXAMPLE[word] for word in EXAMPLE if word in words)])})"
