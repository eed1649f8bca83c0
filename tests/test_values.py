"""A Mask, a Stream, a Tile and a GaussianNoise keep their values, whatever way they are made."""

from __future__ import annotations

import copy
import io
import pickle
import runpy

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastdrop as fd
from fastdrop.stream import StreamRows
from support import DATA, assert_identical, content, plain_package, printed_by

X = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
KINDS = [fd.Mask, fd.Stream, fd.Tile, StreamRows, fd.GaussianNoise]
kinds = pytest.mark.parametrize("kind", KINDS)


def value_of(kind):
    """Return a value of this kind that fits X."""
    return {
        fd.Mask: lambda: fd.keep_mask(X.shape, keep_prob=0.5, rng=1),
        fd.Stream: lambda: fd.Stream(2**128 - 1, 17),
        fd.Tile: lambda: fd.Tile((5, 9), (1, 2), 3, 70),
        StreamRows: lambda: StreamRows(fd.Stream(4, 5), 2, 3, 10),
        fd.GaussianNoise: lambda: fd.GaussianNoise(1, 2, X.shape, keep_prob=0.5, strides=(40, 1)),
    }[kind]()


def others_arguments(kind):
    """Return arguments of another value, which the constructor accepts."""
    return {
        fd.Mask: {"bits": np.zeros(1, np.uint8), "shape": 3, "keep_prob": 0.25},
        fd.Stream: {"seed": 1, "offset": 2},
        fd.Tile: {"shape": (2, 2), "origin": (0, 0), "seed": 1},
        StreamRows: {"stream": fd.Stream(1), "first": 0, "rows": 1, "total": 2},
        fd.GaussianNoise: {"seed": 9, "offset": 9, "shape": 9, "keep_prob": 0.25},
    }[kind]


def fields(value):
    return next(kind for kind in KINDS if isinstance(value, kind))._fields(value)


def used(library, value):
    """Return what calls compute with a value."""
    if isinstance(value, fd.Mask):
        return library.dropout_backward(X, value)
    if isinstance(value, fd.GaussianNoise):
        return library.gaussian_dropout_backward(X, value)
    return library.dropout(X, keep_prob=0.5, rng=value)[0]


# --- made once --------------------------------------------------------------------------------


@kinds
def test_a_value_cannot_be_initialised_again(kind):
    value = value_of(kind)
    before = fields(value)
    for arguments in (others_arguments(kind), dict.fromkeys(others_arguments(kind), 1)):
        with pytest.raises(TypeError, match=f"a {kind.__name__} keeps the values it was made with"):
            value.__init__(**arguments)
    with pytest.raises(TypeError, match="keeps the values it was made with"):
        kind._restore(value, *before)
    assert fields(value) == before


@kinds
def test_a_refused_value_has_none(kind):
    value = kind.__new__(kind)
    with pytest.raises((TypeError, ValueError)):
        value.__init__(**dict.fromkeys(others_arguments(kind), -1))
    with pytest.raises(TypeError, match=f"a {kind.__name__} must be initialised before it is used"):
        repr(value)
    value.__init__(**others_arguments(kind))
    assert fields(value) == fields(kind(**others_arguments(kind)))


@kinds
def test_what_was_never_initialised_is_refused_wherever_it_is_used(kind, library):
    value, refused = kind.__new__(kind), f"a {kind.__name__} must be initialised before it is used"
    for use in (repr, copy.copy, copy.deepcopy, pickle.dumps, lambda value: used(library, value)):
        with pytest.raises(TypeError, match=refused):
            use(value)
    for name in vars(kind):
        if isinstance(vars(kind)[name], type(fd.Stream.seed)) and not name.startswith("__"):
            with pytest.raises(TypeError, match=refused):
                getattr(value, name)
    if hasattr(kind, "spawn"):
        for use in (lambda: value.spawn(1), lambda: value.reserve(1), lambda: setattr(value, "offset", 1)):
            with pytest.raises(TypeError, match=refused):
                use()
    else:
        with pytest.raises(TypeError, match=refused):
            assert value == value_of(kind)


@kinds
def test_there_is_no_other_door(kind):
    value, before = value_of(kind), fields(value_of(kind))
    for name in ("__setstate__", "__setstate_cython__", "__reduce_cython__"):
        assert not hasattr(value, name)
    for name in (*kind.__slots__, "bits", "shape", "strides", "seed", "origin", "keep_prob", "mode", "extra"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(value, name, 1)
        with pytest.raises((AttributeError, TypeError)):
            delattr(value, name)
    assert fields(value) == before


def test_the_bits_of_a_mask_are_its_own(library):
    bits = np.arange(4, dtype=np.uint8)
    for mask in (
        fd.Mask(bits, 32, keep_prob=0.5),
        library.keep_mask(32, keep_prob=0.5, rng=1),
        library.keep_mask(0, keep_prob=0.5),
    ):
        before = mask.to_array()
        with pytest.raises(ValueError):
            mask.bits.resize(1)
        with pytest.raises(ValueError, match="WRITEABLE"):
            mask.bits.flags.writeable = True
        with pytest.raises(ValueError, match="read-only"):
            mask.bits[:] = 1
        bits[:] = 255
        assert np.array_equal(mask.to_array(), before)


# --- copies and pickles -----------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_makes_an_equal_value(kind, protocol):
    for value in (value_of(kind), kind(**others_arguments(kind))):
        stored = pickle.dumps(value, protocol)
        again = pickle.loads(stored)
        assert type(again) is kind
        assert fields(again) == fields(value)
        assert modules_in(stored) == {"fastdrop"}


class Unpickler(pickle.Unpickler):
    def __init__(self, stored: bytes) -> None:
        super().__init__(io.BytesIO(stored))
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> object:
        self.modules.add(module)
        return super().find_class(module, name)


def modules_in(stored: bytes) -> set[str]:
    """Return the modules that a pickle names, except those of Python itself."""
    unpickler = Unpickler(stored)
    unpickler.load()
    return unpickler.modules - {"_codecs", "builtins", "__builtin__"}


class NamedMask(fd.Mask):
    pass


class NamedStream(fd.Stream):
    __slots__ = ("__dict__", "note")

    def __init__(self, name):
        super().__init__(3, 5)
        self.name = name


class NamedTile(fd.Tile):
    __slots__ = ("name",)


class NamedNoise(fd.GaussianNoise):
    pass


class NamedRows(StreamRows):
    pass


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_a_subclass_is_copied_by_its_own_class_with_what_it_adds(duplicate, library):
    bits = fd.keep_mask(X.shape, keep_prob=0.5, rng=1).bits
    named = [
        NamedMask(bits, X.shape, keep_prob=0.5),
        NamedStream("a"),
        NamedTile((5, 9), (1, 2), 3),
        NamedNoise(1, 2, X.shape, keep_prob=0.5),
        NamedRows(fd.Stream(4, 5), 2, 3, 10),
    ]
    for value in named:
        value.name = ["kept"]
        again = duplicate(value)
        assert type(again) is type(value)
        assert fields(again) == fields(value)
        assert again.name == ["kept"]
        assert_identical(used(library, again), used(library, value))
    noted = named[1]
    noted.note = 5
    assert duplicate(noted).note == 5


def test_stored_pickles():
    """A value that was stored once can always be loaded, whatever its kind and protocol."""
    values = runpy.run_path(str(DATA / "make_pickles.py"))["VALUES"]
    stored = content(DATA / "pickles.txt")
    assert len(stored) == 4 * len(values)
    for line in stored:
        name, _, text = line.rpartition("  ")[0], *line.rpartition(" -> ")[1:]
        again = pickle.loads(bytes.fromhex(text))
        assert type(again) is type(values[name])
        assert fields(again) == fields(values[name])
        assert modules_in(bytes.fromhex(text)) == {"fastdrop"}


def test_a_result_of_monte_carlo_is_pickled_by_its_public_name():
    result = fd.mc_predict(lambda x, stream: fd.dropout(x, keep_prob=0.5, rng=stream)[0], X, 3, rng=1)
    stored = pickle.dumps(result)
    assert {name.split(".")[0] for name in modules_in(stored)} <= {"fastdrop", "numpy"}
    assert "fastdrop.monte_carlo" not in modules_in(stored)
    again = pickle.loads(stored)
    assert_identical(again.mean, result.mean)
    assert fields(again.stream(2)) == fields(result.stream(2))


PLAIN = """
import copy, pickle
from fastdrop import noise, reference, stream
assert stream.__file__.endswith("stream.py") and noise.__file__.endswith("noise.py")
drawn = reference.keep_mask((3, 4), keep_prob=0.5, rng=1)
rows = stream.StreamRows(stream.Stream(4, 5), 2, 3, 10)
noise = noise.GaussianNoise(1, 2, 3, keep_prob=0.5)
values = [drawn, stream.Stream(4, 5), stream.Tile((5, 9), (1, 2), 3), rows, noise]
for value in values:
    kind = type(value)
    for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert type(again) is kind and kind._fields(again) == kind._fields(value)
    for use in (lambda: kind._restore(value, *kind._fields(value)), lambda: repr(kind.__new__(kind))):
        try:
            use()
        except TypeError as error:
            print(kind.__name__ in str(error), end=" ")
"""


def test_values_are_made_once_in_plain_python_too(tmp_path):
    plain_package(tmp_path, "from fastdrop.values import _restored")
    assert printed_by(PLAIN, PYTHONPATH=str(tmp_path)) == " ".join(["True"] * 10)


# --- any state --------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-2, 20),
    st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**128 - 1, 2**128, 10**30]),
)
JUNK = st.one_of(
    NUMBERS,
    st.none(),
    st.booleans(),
    st.floats(),
    st.binary(max_size=3),
    st.sampled_from(["inverted", "alpha", "", "half"]),
    st.lists(NUMBERS, max_size=3).map(tuple),
    st.lists(NUMBERS, max_size=3),
    st.sampled_from([(1,) * 65, (0,) * 64, np.zeros(2, np.uint8), np.float64(0.5), {}, object]),
)
TRUE_FIELDS = {
    "Mask": (b"\x05\x0f", (3, 4), 0.5, "inverted"),
    "Stream": (3, 4, 1, (7, 8)),
    "Tile": ((5, 9), (1, 2), 3, 70),
    "StreamRows": (3, 4, 1, (), 2, 3, 10),
    "GaussianNoise": (1, 2, (3, 4), 0.5, (40, 1)),
}
REFUSED = (TypeError, ValueError, AttributeError, pickle.UnpicklingError)


@st.composite
def states(draw):
    """Draw a kind, and fields of which some are as they should be."""
    kind = draw(st.sampled_from(list(TRUE_FIELDS)))
    state = [draw(JUNK) if draw(st.booleans()) else field for field in TRUE_FIELDS[kind]]
    if not draw(st.integers(0, 9)):
        state = draw(st.lists(JUNK, max_size=6))
    return kind, state


class Forged:
    """This is pickled as something else."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


EXAMPLES = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = ["_bits", "_shape", "_seed", "_strides", "_stream", "shape", "offset", "name"]
ADDED = st.none() | st.dictionaries(st.sampled_from(NAMES), JUNK, max_size=2)


@EXAMPLES
@given(states(), ADDED, st.booleans(), st.integers(2, 5))
def test_any_state_is_a_valid_value_or_refused(state, added, as_slots, protocol):
    kind, state = state
    try:
        value = fd._restored(kind, *state)
    except (TypeError, ValueError):
        value = None
    else:
        exercise(value)
    forged = Forged(fd._restored, (kind, *state), (None, added) if as_slots else added)
    try:
        again = pickle.loads(pickle.dumps(forged, protocol))
    except REFUSED:
        return
    assert value is not None
    exercise(again)


def exercise(value):
    """Make calls with a valid value. They may fail only for lack of memory or positions."""
    repr(value)
    assert fields(pickle.loads(pickle.dumps(value))) == fields(value)
    for library in (fd, fd.reference):
        if isinstance(value, (fd.Mask, fd.GaussianNoise)):
            small = np.prod([float(length) for length in value.shape]) < 1000
            shape = value.shape if small and max(value.shape, default=0) < 1000 else None
            if shape is not None:
                name = "dropout_backward" if isinstance(value, fd.Mask) else "gaussian_dropout_backward"
                getattr(library, name)(np.ones(shape, np.float32), value)
                value.to_array()
            continue
        shape = (3, 4)
        if isinstance(value, fd.Tile):
            shape = tuple(max(min(whole - first, 2), 0) for whole, first in zip(value.shape, value.origin))
        elif isinstance(value, StreamRows):
            shape = (min(fields(value)[5], 100), 2)
        try:
            library.keep_mask(shape, keep_prob=0.5, rng=copy.copy(value))
        except ValueError as error:  # without positions or room for the shape
            refused = str(error)
        else:
            continue
        reasons = ("positions left", "count must be in", "tile that", "chunk must", "whole batch")
        assert any(text in refused for text in reasons)


@pytest.mark.parametrize("kind", ["Masks", "", 3, None, int, object, np.ndarray, fd.Mask.bits])
def test_no_other_kind_is_restored(kind):
    with pytest.raises(ValueError, match="kind must be GaussianNoise, Mask, Stream, StreamRows, Tile or"):
        fd._restored(kind, 1, 2, 3, 4)


# --- subclasses that lie ----------------------------------------------------------------------


def lying(kind, **members):
    return type("Lying", (kind,), {name: property(lambda self, v=v: v) for name, v in members.items()})


@pytest.mark.parametrize(
    "members",
    [
        {"shape": (10**6,)}, {"shape": (4, 3)}, {"bits": np.zeros(0, np.uint8)}, {"scale": 77.0}, {"size": 0},
        {"keep_prob": 0.9}, {"mode": "vanilla"}, {"nbytes": 0}, {"_bits": b""}, {"_shape": (10**6,)},
        {"__dict__": {}}, {"shape": None}, {"bits": None}, {"keep_prob": "a"}, {"mode": None},
    ],
)  # fmt: skip
def test_a_mask_that_says_something_else_is_what_it_is(members, library):
    mask = value_of(fd.Mask)
    liar = lying(fd.Mask, **members)(mask.bits, mask.shape, keep_prob=mask.keep_prob)
    dx = library.dropout_backward(X, mask)
    assert_identical(library.dropout_backward(X, liar), dx)
    assert_identical(library.relu_dropout_backward(X, liar), dx)
    assert_identical(library.relu_dropout_backward(X, liar, keep_prob=0.5, mode="inverted"), dx)
    with pytest.raises(ValueError, match="mask must have dy's shape"):
        library.dropout_backward(X.T, liar)
    assert mask == liar == mask


@pytest.mark.parametrize(
    "members", [{"shape": (5,)}, {"strides": (0, 0)}, {"offset": 2**64}, {"seed": None}, {"scale": 0.0}]
)
def test_noise_that_says_something_else_is_what_it_is(members, library):
    noise = value_of(fd.GaussianNoise)
    seed, offset, shape, keep_prob, strides = fields(noise)
    liar = lying(fd.GaussianNoise, **members)(seed, offset, shape, keep_prob=keep_prob, strides=strides)
    assert_identical(
        library.gaussian_dropout_backward(X, liar), library.gaussian_dropout_backward(X, noise)
    )


@pytest.mark.parametrize("kind", [fd.Tile, StreamRows])
@pytest.mark.parametrize("name", ["place", "seed", "offset", "shape", "reserve"])
def test_a_place_that_says_something_else_is_what_it_is(kind, name, library):
    value, arguments = value_of(kind), fields(value_of(kind))
    liar = lying(kind, **{name: None})
    liar = liar(*arguments) if kind is fd.Tile else liar(fd.Stream(*arguments[:2]), *arguments[-3:])
    for _ in range(2):
        assert_identical(used(library, liar), used(library, value))
        assert fields(liar) == fields(value)


@pytest.mark.parametrize("name", ["reserve", "seed", "offset", "__getattribute__"])
def test_a_stream_that_draws_elsewhere_is_refused(name, library):
    members = {name: getattr(fd.Stream, name)}
    mixin = type("Mixin", (), members)
    for stream in (type("Kind", (fd.Stream,), members)(1, 2), type("Kind", (mixin, fd.Stream), {})(1, 2)):
        refused = f"rng must be a Stream that keeps the {name} of its kind"
        with pytest.raises(TypeError, match=refused):
            library.keep_mask((1, 4), keep_prob=0.5, rng=stream)
        with pytest.raises(TypeError, match=refused):
            fd.layers.Dropout(keep_prob=0.5, rng=stream)
        assert fields(stream)[:2] == (1, 2)


def test_an_instance_with_a_reserve_of_its_own_is_refused(library):
    class Kind(fd.Stream):
        pass

    stream = Kind(1)
    assert library.keep_mask(9, keep_prob=0.5, rng=stream) == library.keep_mask(9, keep_prob=0.5, rng=1)
    stream.reserve = lambda count: 0
    with pytest.raises(TypeError, match="keeps the reserve of its kind"):
        library.keep_mask(9, keep_prob=0.5, rng=stream)


# --- shapes -----------------------------------------------------------------------------------

MANY = (1,) * 65


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda calls: calls.keep_mask((0,) * 100, keep_prob=0.5), "shape must have at most 64 axes"),
        (lambda calls: calls.keep_mask(MANY, keep_prob=0.5), "shape must have at most 64 axes"),
        (lambda calls: calls.keep_mask(iter(MANY), keep_prob=0.5), "shape must have at most 64 axes"),
        (
            lambda calls: calls.keep_mask((0, 2**70), keep_prob=0.5),
            r"shape must have at most 2\*\*63 - 1 elements",
        ),
        (
            lambda calls: calls.keep_mask((2**32, 2**31), keep_prob=0.5),
            r"shape must have at most 2\*\*63 - 1 elements",
        ),
        (
            lambda calls: calls.keep_mask(2**63, keep_prob=0.5),
            r"shape must have at most 2\*\*63 - 1 elements",
        ),
        (lambda calls: fd.Tile(MANY, MANY, 1), "shape must have at most 64 axes"),
        (lambda calls: fd.Tile((1,), MANY, 1), "origin must have at most 64 axes"),
        (lambda calls: fd.Tile((0, 10**30), (0, 0), 1), r"shape must have at most 2\*\*64 elements"),
        (lambda calls: fd.Tile((2**32, 2**32 + 1), (0, 0), 1), r"shape must have at most 2\*\*64 elements"),
        (lambda calls: fd.Mask(np.empty(0, np.uint8), (0, 2**70), keep_prob=0.5), "shape must have at most"),
        (
            lambda calls: fd.Mask(np.empty(0, np.uint8), (0,) * 65, keep_prob=0.5),
            "shape must have at most 64 axes",
        ),
        (lambda calls: fd.GaussianNoise(1, 0, (0,) * 65, keep_prob=0.5), "shape must have at most 64 axes"),
        (
            lambda calls: fd.GaussianNoise(1, 0, (0, 2**63), keep_prob=0.5),
            r"shape must have at most 2\*\*63 - 1",
        ),
        (
            lambda calls: fd.GaussianNoise(1, 0, (1,), keep_prob=0.5, strides=(2**64,)),
            r"strides must be in \[0, 2\*\*64\)",
        ),
        (
            lambda calls: fd.GaussianNoise(1, 0, (1,), keep_prob=0.5, strides=(-1,)),
            "strides must have no negative length",
        ),
    ],
)
def test_one_place_says_what_a_shape_may_be(make, message, library):
    with pytest.raises(ValueError, match=message):
        make(library)


def test_the_largest_mask_is_a_matter_of_memory(library):
    stream = fd.Stream(1)
    with pytest.raises(MemoryError):
        library.keep_mask(2**63 - 1, keep_prob=0.5, rng=stream)
    assert stream.offset == 0


def test_64_axes(library):
    shape = (1,) * 31 + (2,) + (1,) * 31 + (3,)
    tile = fd.Tile((1,) * 31 + (4,) + (1,) * 31 + (5,), (0,) * 31 + (1,) + (0,) * 31 + (2,), 6)
    mask = library.keep_mask(shape, keep_prob=0.5, rng=tile)
    whole = library.keep_mask((4, 5), keep_prob=0.5, rng=6).to_array()
    assert np.array_equal(mask.to_array().reshape(2, 3), whole[1:3, 2:5])
    assert pickle.loads(pickle.dumps(mask)) == mask


@pytest.mark.parametrize(
    ("whole", "origin", "shape"),
    [
        ((0, 2**64), (0, 0), (0, 5)), ((1, 2**64), (0, 2**64 - 5), (1, 5)), ((4, 6), (4, 6), (0, 0)),
        ((2**64, 0), (2**64 - 1, 0), (1, 0)), ((2, 2**63), (1, 2**63 - 4), (1, 4)),
        ((2, 2**63), (0, 7), (2, 4)),
    ],
)  # fmt: skip
def test_tiles_at_the_ends_of_the_largest_arrays(library, whole, origin, shape):
    tile = fd.Tile(whole, origin, seed=8)
    mask = library.keep_mask(shape, keep_prob=0.5, rng=tile)
    noise = library.gaussian_dropout(np.ones(shape, np.float32), keep_prob=0.5, rng=tile)[1]
    rows = range(shape[0]) if shape[1] else ()
    starts = [(origin[0] + row) * whole[1] + origin[1] for row in rows]
    apart = [
        fd.reference.keep_mask(shape[1], keep_prob=0.5, rng=fd.Stream(8, start)).to_array()
        for start in starts
    ]
    assert np.array_equal(mask.to_array(), np.reshape(apart, shape))
    alone = [fd.GaussianNoise(8, start, shape[1], keep_prob=0.5).to_array() for start in starts]
    assert np.array_equal(noise.to_array(), np.reshape(np.float32(alone), shape))
    assert pickle.loads(pickle.dumps(noise)) == noise == eval(repr(noise), vars(fd))


@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (0, 1), (3, 2)])
def test_no_two_elements_share_noise(strides):
    with pytest.raises(ValueError, match="strides must give each element noise of its own"):
        fd.GaussianNoise(1, 0, (2, 3), keep_prob=0.5, strides=strides)
