"""Dropout of plain CPU tensors in eager mode, with no operator of PyTorch around the kernel.

On a small tensor an operator costs ten times as much as the kernel, so this module goes from the tensor's address to
the kernel. It compiles without PyTorch and calls it through Python only, so one build serves every version. If other
code has to see the call (a transform, a mode, a tracer), each function here returns None and has changed nothing.
operators.py then takes the call.

A gradient comes in one of two ways. Up to CARRIED elements, or channels, PyTorch's own product carries it:
`torch.mul(x, noise)` makes a node in C++ that knows every derivative, and the kernel writes its own values over the
product's. For more elements an autograd.Function saves one bit per decision.
"""

import threading

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsUnsignedLongLongMask
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset

from fastdrop.core cimport dispatch
from fastdrop.core.dispatch cimport Plan
from fastdrop.core.float_mode cimport enter_default_mode, float_mode, leave_default_mode
from fastdrop.core.layout cimport MAX_AXES, Layout, lay_out
from fastdrop.core.strided cimport Operand, Strided, hand_over, room_for
from fastdrop.formulas cimport training_scale
from fastdrop.kernels.sweep cimport (
    BFLOAT16, BUILD_TAG, FLOAT16, FLOAT32, FLOAT64, SAVED_BITS, decision_for, dropout_sweep, itemsize,
)

import numpy as np
import torch
from torch.overrides import has_torch_function_unary

from fastdrop.core.dispatch import same_build
from fastdrop.formulas import alpha_affine, c_strides
from fastdrop.torch import internals

same_build(BUILD_TAG, __name__)

cdef enum:
    CARRIED_BYTES = 2048            # one bit for each of the elements
    CARRIED = CARRIED_BYTES * 8     # up to which PyTorch's product carries the gradient
    REORDERED = 4096                # elements from which on it pays to compute in the order of memory
    DROPOUT = 0             # indices of FORMS
    RELU = 1
    ALPHA = 2

FORMS = ("dropout", "relu_dropout", "alpha_dropout")
NUMBERS = (float, int, np.number, np.bool_)     # what PyTorch takes as a float

cdef object Tensor = torch.Tensor, Parameter = torch.nn.Parameter
cdef object empty_like = torch.empty_like, mul = torch.mul, addcmul = torch.addcmul, relu = torch.relu
cdef object add = torch.add, torch_softmax = torch.softmax
cdef object is_grad_enabled = torch.is_grad_enabled, increment_version = torch.autograd.graph.increment_version
cdef object strided = torch.strided, float32 = torch.float32
cdef object transforms_active = internals.transforms_active, count_modes = internals.count_modes
cdef object tracing_state = internals.tracing_state, only_own_modes = internals.only_own_modes
cdef object loses_tangent = internals.loses_tangent
cdef object is_lazy_copy = internals.is_lazy_copy, storage_address = internals.storage_address
cdef dict forward_mode = internals.forward_mode
cdef dict DTYPES = {
    torch.float32: FLOAT32, torch.float64: FLOAT64, torch.float16: FLOAT16, torch.bfloat16: BFLOAT16,
}

with torch.inference_mode(False):   # the first import may be inside of inference mode, which these outlive
    new_bytes = torch.empty(1, dtype=torch.uint8, device="cpu").new_empty
    ONES = torch.ones(CARRIED, dtype=torch.float32, device="cpu"), torch.ones(CARRIED, dtype=torch.float64, device="cpu")

cdef object new_bits = new_bytes
cdef void* ones[2]
ones[<int> FLOAT32], ones[<int> FLOAT64] = <void*> <uintptr_t> ONES[0].data_ptr(), <void*> <uintptr_t> ONES[1].data_ptr()


@cython.final
cdef class Words:
    """The memory of the words of a seed, and the method that fills it."""
    cdef object fill
    cdef const int64_t* words

    def __cinit__(self):
        with torch.inference_mode(False):
            words = torch.empty(4, dtype=torch.int64, device="cpu")
        self.fill = words.random_
        self.words = <const int64_t*> <uintptr_t> words.data_ptr()


class Threads(threading.local):
    """Each thread has words of its own, because other threads may run during a draw."""

    def __init__(self):
        self.words = Words()


cdef object threads = Threads()


# What a call computes. A Rule is made once per call, and is all that a gradient has to know beside the bits.
cdef struct Rule:
    # An index of FORMS.
    int form
    # Leading axes with decisions of their own; the elements behind share one. -1: every element has its own.
    int features
    double keep_prob
    # The affine map of the form, as in a sweep.
    double scale
    double dropped
    double shift


# A tensor as the kernel sees it, measured once per call.
cdef struct Place:
    # The address of element 0.
    uintptr_t address
    # An element type of sweep.h; -1 for a tensor that only operators, or PyTorch's own functions, can take.
    int dtype
    bint contiguous
    # The number of elements.
    ptrdiff_t size


# A sweep and what it needs to run.
cdef struct Work:
    dropout_sweep sweep
    Plan plan
    Layout layout
    Strided strided


# --- who may take this way --------------------------------------------------------------------


cdef inline bint find(Place* place, x) except -1:
    """Whether `x` is a plain CPU tensor with elements in memory, and where."""
    cdef int number
    if type(x) is not Tensor and type(x) is not Parameter:
        return False
    dtype = x.dtype
    if dtype is float32:
        number = FLOAT32
    else:
        number = DTYPES.get(dtype, -1)
    if number < 0 or not x.is_cpu or x.layout is not strided or x.is_nested or x.is_neg():
        return False
    try:
        measure(place, x, number)
    except (RuntimeError, NotImplementedError):     # a wrapper of torch.func, of the old vmap or of a tracer
        return False
    return place.address != 0 and (place.contiguous or x.dim() <= MAX_AXES)


cdef inline int measure(Place* place, tensor, int dtype) except -1:
    place.address = address_of(tensor)
    place.dtype, place.contiguous, place.size = dtype, tensor.is_contiguous(), tensor.numel()
    if place.address == 0 and place.size:
        raise RuntimeError("dropout needs a tensor whose elements are in memory, and the storage of this one is empty")
    return 0


cdef inline int place_result(Place* place, y, const Place* x, const Place* residual) except -1:
    """Measure a tensor that PyTorch has made of `x` and the residual, which is contiguous where both are."""
    place.address = PyLong_AsUnsignedLongLongMask(y.data_ptr())
    place.dtype, place.size = x.dtype, x.size
    place.contiguous = both_contiguous(x, residual) or y.is_contiguous()
    return 0


cdef inline bint both_contiguous(const Place* at_x, const Place* at_residual) noexcept:
    return at_x.contiguous and (at_residual == NULL or at_residual.contiguous)


cdef inline bint all_contiguous(const Place* at_x, const Place* at_residual, const Place* at_y) noexcept:
    return at_y.contiguous and both_contiguous(at_x, at_residual)


cdef inline bint is_eager() except -1:
    """Whether nobody else has to see what is called: no transform, mode, tracer or forward-mode derivative."""
    return (
        not transforms_active()
        and not count_modes()
        and tracing_state() is None
        and <object> forward_mode.get("_current_level", 0) < 0
    )


cdef inline bint is_overridden(x) except -1:
    """Whether a function mode has to see the call."""
    return has_torch_function_unary(x) and not only_own_modes()


cdef inline bint is_number(p) except -1:
    return type(p) is float or (isinstance(p, NUMBERS) and 0 <= p <= 1)     # an integer may be too large for a double


# --- memory -----------------------------------------------------------------------------------


cdef inline uintptr_t address_of(tensor) except? 0:
    """The address of element 0, to read from it. It leaves a lazy copy lazy."""
    if is_lazy_copy(tensor):
        return storage_address(tensor) + tensor.storage_offset() * tensor.element_size() if tensor.numel() else 0
    return PyLong_AsUnsignedLongLongMask(tensor.data_ptr())


cdef inline unsigned char* bits_in(tensor) except NULL:
    return <unsigned char*> <uintptr_t> PyLong_AsUnsignedLongLongMask(tensor.data_ptr())


cdef inline ptrdiff_t packed(ptrdiff_t decisions) noexcept:
    """The bytes that have room for `decisions` bits. There are always two or more, for a compiler that knows the shape
    as a symbol: it need not ask whether the length is 0 or 1, and so does not make the answer a condition."""
    return decisions // 8 + 2


cdef inline void clear_rest(unsigned char* bits, ptrdiff_t decisions) noexcept:
    """Clear the bytes where the last bits will lie, and the rest of the room, which nothing else writes."""
    memset(bits + decisions // 8, 0, 2)


cdef ptrdiff_t decisions_of(x, ptrdiff_t size, int features) except -1:
    """The number of decisions on the `size` elements of `x`."""
    cdef ptrdiff_t count = 1
    cdef int axis
    if features < 0:
        return size
    shape = x.shape
    for axis in range(features):
        count *= <ptrdiff_t> shape[axis]
    return count


# --- sweeps -----------------------------------------------------------------------------------


cdef int set_rule(Rule* rule, int form, int features, double keep_prob) except -1:
    rule.form, rule.features, rule.keep_prob = form, features, keep_prob
    rule.dropped = rule.shift = 0
    if form == ALPHA:
        rule.scale, rule.dropped, rule.shift = alpha_affine(keep_prob)
    else:
        rule.scale = training_scale(keep_prob, "inverted")
    return 0


cdef void begin(Work* work, int dtype, ptrdiff_t size) noexcept:
    """Begin a sweep over `size` elements, which so far reads and writes nothing."""
    memset(&work.sweep, 0, sizeof(work.sweep))
    memset(&work.plan, 0, sizeof(work.plan))
    work.sweep.dtype = dtype
    work.sweep.scale = 1
    work.plan.sweep = &work.sweep
    work.plan.size = size
    work.plan.threads = dispatch.threads_for(size)


cdef inline void draw_decisions(Work* work, const Rule* rule, const uint64_t* seed) noexcept:
    work.sweep.decision = decision_for(rule.keep_prob, &work.sweep.threshold)
    work.sweep.seed[0], work.sweep.seed[1] = seed[0], seed[1]


cdef inline int take_decisions(
    Work* work, const unsigned char* bits, ptrdiff_t decisions, tuple order, tensor, int features
) except -1:
    """Let the sweep take its decisions from bits, which lie by index, also where `order` says how the elements lie."""
    work.sweep.decision = SAVED_BITS
    work.sweep.saved = <const char*> bits
    if order is not None:
        lay_decisions(work, tensor.shape, decision_strides(tensor.shape, features), order)
    elif decisions != work.plan.size:    # each decides on as many successive elements as there are for it
        work.layout.length = work.plan.size // decisions
        work.layout.uniform = True
        work.layout.axes = decisions > 1
        work.layout.count[0], work.layout.stride[0] = decisions, 1
        work.plan.layout = &work.layout
    return 0


cdef int lay_decisions(Work* work, shape, strides, tuple order) except -1:
    """Say where the decisions are, `strides` apart on the axes of `shape`, on elements that lie in another order."""
    if lay_out(&work.layout, tuple(map(shape.__getitem__, order)), tuple(map(strides.__getitem__, order))):
        work.plan.layout = &work.layout
    return 0


cdef tuple decision_strides(shape, int features):
    """How many decisions lie between one index and the next, on each axis."""
    cdef tuple lengths = tuple(shape) if features < 0 else tuple(shape[:features])
    return c_strides(lengths) + (0,) * (len(shape) - len(lengths))


cdef inline tuple order_of_all(x, const Place* at_x, residual, const Place* at_residual, y, const Place* at_y):
    """The axes in the order in which the elements of all these tensors fill memory, or None: for the order of their
    indices, or where there is none."""
    if at_y.size < REORDERED or all_contiguous(at_x, at_residual, at_y):
        return None
    strides = y.stride()
    if (x is not None and x.stride() != strides) or (residual is not None and residual.stride() != strides):
        return None
    return order_in_memory(y.shape, strides)


cdef tuple order_in_memory(shape, strides):
    """The axes from the slowest to the fastest, or None where elements do not lie one after the other."""
    cdef list order = []
    cdef ptrdiff_t size = 1
    cdef int axis
    for axis in range(len(shape)):
        if shape[axis] > 1:
            order.append(axis)
    order.sort(key=strides.__getitem__, reverse=True)
    for axis in reversed(order):
        if <ptrdiff_t> strides[axis] != size:
            return None
        size *= <ptrdiff_t> shape[axis]
    return tuple(order)


cdef inline object aim(
    Work* work, x, const Place* at_x, residual, const Place* at_residual, y, const Place* at_y, tuple order
):
    """Point the sweep at its tensors. Returns the room for pieces of strided ones, which the caller holds."""
    work.sweep.x = <const char*> at_x.address
    work.sweep.y = <char*> at_y.address
    if at_residual != NULL:
        work.sweep.residual = <const char*> at_residual.address
    if order is not None or all_contiguous(at_x, at_residual, at_y):
        return None
    return aim_strided(work, x, at_x, residual, at_residual, y, at_y)


cdef object aim_strided(
    Work* work, x, const Place* at_x, residual, const Place* at_residual, y, const Place* at_y
):
    cdef ptrdiff_t per_thread
    cdef int axis = 0
    for length in y.shape:
        work.strided.count[axis] = length
        axis += 1
    work.strided.axes = axis
    work.strided.saved.data = NULL
    aim_operand(&work.strided.x, x, at_x)
    aim_operand(&work.strided.y, y, at_y)
    aim_operand(&work.strided.residual, residual, at_residual)
    if hand_over(&work.strided, &work.sweep, 0):
        return None
    per_thread = room_for(itemsize(work.sweep.dtype), work.strided.piece)
    room = PyBytes_FromStringAndSize(NULL, work.plan.threads * per_thread)
    work.plan.strided = &work.strided
    work.plan.room = PyBytes_AS_STRING(room)
    return room


cdef int aim_operand(Operand* operand, tensor, const Place* place) except -1:
    cdef int axis = 0
    operand.data = NULL
    operand.swapped = False
    if place == NULL or place.contiguous:
        return 0
    operand.data = <char*> place.address
    for stride in tensor.stride():
        operand.stride[axis] = <ptrdiff_t> stride * itemsize(place.dtype)
        axis += 1
    return 0


cdef void run(Work* work) noexcept:
    """Run the sweep, which no signal interrupts. A short one keeps the GIL."""
    cdef float_mode mode = enter_default_mode()
    if not dispatch.run_whole(&work.plan):
        with nogil:
            dispatch.run_slices(&work.plan)
    leave_default_mode(mode)


cdef int draw_seed(uint64_t* seed, generator) except -1:
    """Draw the four words that operators.new_seed would draw: the low 32 bits of 64 that are random.

    The generator may be a tuple: the two halves of a seed, for an adapter that has a source of its own.
    """
    if type(generator) is tuple:
        seed[0], seed[1] = generator
        return 0
    cdef Words room = threads.words
    if generator is None:
        room.fill()
    else:
        room.fill(generator=generator)
    seed[0] = <uint32_t> room.words[0] | <uint64_t> <uint32_t> room.words[1] << 32
    seed[1] = <uint32_t> room.words[2] | <uint64_t> <uint32_t> room.words[3] << 32
    return 0


cdef void draw_bits(unsigned char* bits, ptrdiff_t decisions, const Rule* rule, const uint64_t* seed) noexcept:
    """One bit for each decision, and no element."""
    cdef Work work
    begin(&work, FLOAT32, decisions)
    draw_decisions(&work, rule, seed)
    work.sweep.mask = bits
    run(&work)


cdef int forward(
    x, const Place* at_x, residual, const Place* at_residual, y, const Place* at_y,
    const Rule* rule, ptrdiff_t decisions, const uint64_t* seed, unsigned char* bits,
) except -1:
    """Write a form of dropout of `x`, plus the residual if there is one, to `y`, and what passed to `bits` unless NULL."""
    cdef Work work
    cdef tuple order = order_of_all(x, at_x, residual, at_residual, y, at_y)
    begin(&work, at_x.dtype, at_x.size)
    work.sweep.relu = rule.form == RELU
    work.sweep.scale, work.sweep.dropped, work.sweep.shift = rule.scale, rule.dropped, rule.shift
    _room = aim(&work, x, at_x, residual, at_residual, y, at_y, order)
    if decisions == at_x.size and order is None:
        draw_decisions(&work, rule, seed)
        work.sweep.mask = bits
        run(&work)
        return 0
    drawn = PyBytes_FromStringAndSize(NULL, packed(decisions)) if bits == NULL or rule.form == RELU else None
    cdef unsigned char* kept = bits if drawn is None else <unsigned char*> PyBytes_AS_STRING(drawn)
    draw_bits(kept, decisions, rule, seed)
    take_decisions(&work, kept, decisions, order, x, rule.features)
    if rule.form == RELU and bits != NULL:
        run_with_mask(&work, x, order, bits)
    else:
        run(&work)
    return 0


cdef int run_with_mask(Work* work, x, tuple order, unsigned char* bits) except -1:
    """Run a sweep over elements that lie in another order than their indices, and write what passed by index."""
    cdef Work by_index
    passed = PyBytes_FromStringAndSize(NULL, packed(work.plan.size))
    work.sweep.mask = <unsigned char*> PyBytes_AS_STRING(passed)
    run(work)
    begin(&by_index, FLOAT32, work.plan.size)
    by_index.sweep.decision = SAVED_BITS
    by_index.sweep.saved = <const char*> work.sweep.mask
    by_index.sweep.mask = bits
    lay_decisions(&by_index, x.shape, x.stride(), tuple(range(x.dim())))
    run(&by_index)
    return 0


cdef int apply_bits(
    x, const Place* at_x, residual, const Place* at_residual, y, const Place* at_y,
    bint relu, double scale, double dropped, double shift, const unsigned char* bits, int features,
) except -1:
    """Write an affine map of `x` where a bit is set and a ReLU, if wanted, lets it pass, to `y`. What is dropped gets its
    value."""
    cdef Work work
    cdef tuple order = order_of_all(x, at_x, residual, at_residual, y, at_y)
    begin(&work, at_y.dtype, at_y.size)
    work.sweep.relu = relu
    work.sweep.scale, work.sweep.dropped, work.sweep.shift = scale, dropped, shift
    _room = aim(&work, x, at_x, residual, at_residual, y, at_y, order)
    take_decisions(&work, bits, decisions_of(y, at_y.size, features), order, y, features)
    run(&work)
    return 0


# --- results ----------------------------------------------------------------------------------


cdef inline object new_result(x, const Place* at_x, residual, const Place* at_residual):
    """Room for the result, with the strides of `dropout(x)`, or else of `residual + dropout(x)`."""
    if residual is None or both_contiguous(at_x, at_residual):
        return empty_like(x)
    return add(residual, empty_like(x))


cdef object detached(
    x, const Place* at_x, residual, const Place* at_residual, const Rule* rule, generator, bint inplace
):
    """The result for an input whose gradient nobody wants."""
    cdef Place at_y = at_x[0]
    cdef uint64_t seed[2]
    if inplace:
        y = x
        draw_seed(seed, generator)
        increment_version(x)
        at_y.address = PyLong_AsUnsignedLongLongMask(x.data_ptr())      # of its own memory, if the copy was lazy
        at_x = &at_y
    else:
        y = new_result(x, at_x, residual, at_residual)
        draw_seed(seed, generator)
        place_result(&at_y, y, at_x, at_residual)
    forward(
        x, at_x, residual, at_residual, y, &at_y, rule, decisions_of(x, at_x.size, rule.features), seed, NULL
    )
    return y


cdef object carried(
    x, const Place* at_x, residual, const Place* at_residual, const Rule* rule, generator, bint inplace
):
    """`x * noise`, for the node that PyTorch makes of it, with the kernel's values written over the product's.

    The product's own values may be NaN or -0 where an element is dropped.
    """
    cdef Place at_noise, at_y, at_ones
    cdef uint64_t seed[2]
    cdef unsigned char bits[CARRIED_BYTES + 2]
    cdef bint with_relu = rule.form == RELU
    cdef ptrdiff_t decisions = decisions_of(x, at_x.size, rule.features)
    cdef bint every = at_x.size <= CARRIED      # a product of two shapes would take longer
    noise = empty_like(x) if every else x.new_empty(noise_shape(x, rule.features))
    draw_seed(seed, generator)
    place_result(&at_noise, noise, at_x, NULL)
    draw_bits(bits, decisions, rule, seed)
    # The noise is the scale where kept, else 0.
    at_noise.size = at_x.size if every else decisions
    at_ones = at_noise
    at_ones.address, at_ones.contiguous = <uintptr_t> ones[at_x.dtype], True
    apply_bits(
        None, &at_ones, None, NULL, noise, &at_noise, False, rule.scale, 0, 0, bits, rule.features if every else -1
    )
    y = product(x, residual, noise, with_relu, inplace)
    place_result(&at_y, y, at_x, at_residual)
    if rule.form == DROPOUT and decisions < at_y.size and at_y.contiguous:
        clear_dropped(&at_y, bits, decisions)
    elif inplace and not with_relu:     # x has been multiplied
        apply_bits(y, &at_y, None, NULL, y, &at_y, False, 1, rule.dropped, rule.shift, bits, rule.features)
    else:
        apply_bits(
            x, at_x, residual, at_residual, y, &at_y,
            with_relu, rule.scale, rule.dropped, rule.shift, bits, rule.features,
        )
    return x.copy_(y) if inplace and with_relu else y


cdef object product(x, residual, noise, bint with_relu, bint inplace):
    """PyTorch's own product. The ReLU is a node of its own, because 0 times an infinite gradient is not 0."""
    if residual is not None:
        return addcmul(residual, x, noise)
    if with_relu:
        return mul(relu(x), noise)
    return x.mul_(noise) if inplace else mul(x, noise)


cdef void clear_dropped(const Place* at_y, const unsigned char* bits, ptrdiff_t decisions) noexcept:
    """Write 0 to the elements that are dropped together."""
    cdef ptrdiff_t n, size = at_y.size // decisions * itemsize(at_y.dtype)
    for n in range(decisions):
        if not bits[n >> 3] >> (n & 7) & 1:
            memset(<char*> at_y.address + n * size, 0, size)


cdef list noise_shape(x, int features):
    """One factor for each decision, to be broadcast."""
    return list(x.shape[:features]) + [1] * (x.dim() - features)


@cython.final
@cython.no_gc
cdef class Call:
    """What an autograd.Function is given beside the tensors."""
    cdef Rule rule
    cdef Place at_x
    cdef Place at_residual
    cdef bint with_residual
    cdef object generator


def function_forward(ctx, x, residual, Call call):
    """`forward` of the autograd.Function that saves bits."""
    cdef Place at_y
    cdef uint64_t seed[2]
    cdef ptrdiff_t decisions = decisions_of(x, call.at_x.size, call.rule.features)
    cdef Place* at_residual = NULL if residual is None else &call.at_residual
    y = new_result(x, &call.at_x, residual, at_residual)
    bits = new_bits(packed(decisions))
    draw_seed(seed, call.generator)
    call.generator = None
    place_result(&at_y, y, &call.at_x, at_residual)
    forward(x, &call.at_x, residual, at_residual, y, &at_y, &call.rule, decisions, seed, bits_in(bits))
    ctx.save_for_backward(bits)
    ctx.call = call
    ctx.rule = call.rule.keep_prob, FORMS[call.rule.form], call.rule.features   # for a compiler, which cannot see a Call
    return y


def function_backward(ctx, dy):
    """`backward` of the autograd.Function: by the kernel, or by operators where it is differentiated, batched or traced."""
    cdef Call call = ctx.call
    if not call.with_residual:
        return gradient(call, dy, ctx.saved_tensors[0]), None, None
    wanted, residual_wanted, _ = ctx.needs_input_grad
    return gradient(call, dy, ctx.saved_tensors[0]) if wanted else None, dy if residual_wanted else None, None


cdef object gradient(Call call, dy, bits):
    cdef Place at_dy, at_dx
    cdef const Rule* rule = &call.rule
    if dy.layout is not strided:
        dy = dy.to_dense()
    # Hooks on saved tensors may give back anything.
    if (
        dy.requires_grad and is_grad_enabled() or not is_eager()
        or not find(&at_dy, dy) or at_dy.dtype != call.at_x.dtype
        or type(bits) is not Tensor or not bits.is_cpu or not bits.is_contiguous()
    ):
        return apply_backward(dy, bits, rule.keep_prob, FORMS[rule.form], rule.features)
    dx = empty_like(dy)
    if not at_dy.contiguous and 0 in dy.stride():     # one value for all, such as the gradient of a sum
        dy = dy.contiguous()
        measure(&at_dy, dy, at_dy.dtype)
    place_result(&at_dx, dx, &at_dy, NULL)
    apply_bits(dy, &at_dy, None, NULL, dx, &at_dx, False, rule.scale, 0, 0, bits_in(bits), rule.features)
    return dx


cdef object apply = None, apply_backward = None


def bind(function, backward):
    """Give the autograd.Function of operators.py, and the operator that computes its gradient where we do not."""
    global apply, apply_backward
    apply_backward = backward
    # A Function's own `apply` looks again, in Python, for the transforms that is_eager has ruled out.
    apply = super(torch.autograd.Function, function).apply


def are_plain(tensors):
    """Whether all are plain CPU tensors with elements in memory, and nobody else has to see what is called."""
    cdef Place place
    if not is_eager():
        return False
    for x in tensors:
        if is_overridden(x) or not find(&place, x):
            return False
    return True


def softmax(x):
    """The softmax of each row of a plain tensor, or None if one might be NaN or if others have to see what is called."""
    cdef Place place
    if not is_eager():
        return None
    y = torch_softmax(x, -1)
    if not find(&place, y) or place.dtype > FLOAT64 or not place.contiguous:
        return None
    return y if begin_finite(&place, <ptrdiff_t> y.shape[-1]) else None


cdef bint begin_finite(const Place* place, ptrdiff_t length) noexcept:
    """Whether the first element of each row is a number. In a softmax, NaN fills a row."""
    cdef ptrdiff_t n
    cdef double first
    for n in range(0, place.size, length):
        if place.dtype == FLOAT32:
            first = (<const float*> place.address)[n]
        else:
            first = (<const double*> place.address)[n]
        if first != first:
            return False
    return True


def drop(x, p, training, inplace, generator, int form, int features):
    """A form of dropout of `x`, or None if the call is the operators' or PyTorch's own.

    `features` is the number of leading axes that have decisions of their own; -1 for all, and 0 for an input without.
    """
    cdef Rule rule
    cdef Place at_x
    cdef double rate
    if not is_number(p) or (training is not True and training is not False):
        return None
    rate = p
    # A function mode sees each look at the tensor, and a tracer counts in tensors.
    if not 0 <= rate <= 1 or features == 0 or not is_eager() or is_overridden(x) or not find(&at_x, x):
        return None
    if training is False or rate == 0:
        return x if form != RELU else x.relu_() if inplace else relu(x)
    if inplace and not (at_x.contiguous and not x.is_inference()):  # which may overlap itself, or be refused
        return None
    set_rule(&rule, form, features, 1 - rate)
    return result(x, &at_x, None, NULL, &rule, generator, bool(inplace))


def drop_add(x, residual, p, training, generator):
    """`drop` with a residual of the same shape and dtype."""
    cdef Rule rule
    cdef Place at_x, at_residual
    cdef double rate
    if not is_number(p) or training is not True:
        return None
    rate = p
    if not 0 < rate <= 1 or not is_eager() or is_overridden(x):
        return None
    if not find(&at_x, x) or not find(&at_residual, residual):
        return None
    if at_residual.dtype != at_x.dtype or x.shape != residual.shape:
        return None
    set_rule(&rule, DROPOUT, -1, 1 - rate)
    return result(x, &at_x, residual, &at_residual, &rule, generator, False)


cdef inline bint is_carried(x, const Place* at_x, const Rule* rule) except -1:
    """Whether PyTorch's product carries the gradient. One factor for many elements costs little at any size.

    Noise of 16 bits would be rounded, and the gradient would differ from the kernel's.
    """
    if at_x.dtype > FLOAT64:
        return False
    if at_x.size <= CARRIED:
        return True
    return rule.form == DROPOUT and rule.features >= 0 and decisions_of(x, at_x.size, rule.features) <= CARRIED


cdef object result(
    x, const Place* at_x, residual, const Place* at_residual, const Rule* rule, generator, bint inplace
):
    cdef Call call
    cdef bint derived = x.requires_grad or (residual is not None and residual.requires_grad)
    if not (derived and is_grad_enabled()):
        return detached(x, at_x, residual, at_residual, rule, generator, inplace)
    if is_carried(x, at_x, rule):
        return carried(x, at_x, residual, at_residual, rule, generator, inplace)
    call = Call.__new__(Call)
    call.rule, call.at_x, call.generator = rule[0], at_x[0], generator
    call.with_residual = at_residual != NULL
    if at_residual != NULL:
        call.at_residual = at_residual[0]
    y = apply(x, residual, call)
    return x.copy_(y) if inplace else y


# --- operators --------------------------------------------------------------------------------


cdef int refuse_tangent(x, residual) except -1:
    """An operator has no forward-mode derivative, and a tangent that is lost is a wrong result."""
    if <object> forward_mode.get("_current_level", 0) >= 0 and loses_tangent(x, residual):
        raise NotImplementedError("dropout has no forward-mode derivative inside of compiled code")
    return 0


cdef int read_seed(uint64_t* seed, words) except -1:
    """The words of a tensor that `operators.new_seed` has drawn."""
    cdef list numbers = words.tolist()
    seed[0] = <uint64_t> numbers[0] | <uint64_t> numbers[1] << 32
    seed[1] = <uint64_t> numbers[2] | <uint64_t> numbers[3] << 32
    return 0


def operator_forward(x, residual, double keep_prob, form, int features, words):
    """The body of the operators fastdrop::forward and fastdrop::forward_add: the result, and the packed bits."""
    cdef Rule rule
    cdef Place at_x, at_residual, at_y
    cdef Place* added = NULL if residual is None else &at_residual
    cdef uint64_t seed[2]
    cdef ptrdiff_t decisions
    if form == "relu_dropout" and features >= 0:
        raise ValueError(f"features must be -1 for relu_dropout, which decides for each element, got {features}")
    refuse_tangent(x, residual)
    set_rule(&rule, FORMS.index(form), features, keep_prob)
    measure(&at_x, x, DTYPES[x.dtype])
    if residual is not None:
        measure(&at_residual, residual, at_x.dtype)
    decisions = decisions_of(x, at_x.size, features)
    y = new_result(x, &at_x, residual, added)
    bits = new_bits(packed(decisions))
    place_result(&at_y, y, &at_x, added)
    clear_rest(bits_in(bits), decisions)
    read_seed(seed, words)
    if at_x.size:
        forward(x, &at_x, residual, added, y, &at_y, &rule, decisions, seed, bits_in(bits))
    return y, bits


def operator_backward(dy, bits, double keep_prob, form, int features):
    """The body of the operator fastdrop::backward."""
    cdef Rule rule
    cdef Place at_dy, at_dx
    refuse_tangent(dy, None)
    set_rule(&rule, FORMS.index(form), features, keep_prob)
    measure(&at_dy, dy, DTYPES[dy.dtype])
    dx, bits = empty_like(dy), bits.contiguous()
    place_result(&at_dx, dx, &at_dy, NULL)
    if at_dy.size:
        apply_bits(dy, &at_dy, None, NULL, dx, &at_dx, False, rule.scale, 0, 0, bits_in(bits), features)
    return dx
