"""Dropout of plain CPU tensors in eager mode, with no operator of PyTorch around the kernel.

An operator costs ten times as much as the kernel on a small tensor, so this module goes from a tensor's address to the
kernel. It compiles without PyTorch and calls it through Python alone, so one build serves every version. Where
somebody else has to see the call (a transform, a mode, a tracer) each function here returns None and has changed
nothing; operators.py then takes the call.

A gradient comes in one of two ways. Below CARRIED elements PyTorch's own product carries it: `torch.mul(x, noise)`
makes a node in C++ that knows every derivative, and the kernel writes its own values over the product's. From there
on an autograd.Function saves one bit per decision.
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
from fastdrop.core.layout cimport MAX_AXES, Layout
from fastdrop.core.strided cimport Operand, Strided, join_axes, piece_of, room_for
from fastdrop.kernels.sweep cimport (
    BFLOAT16, BUILD_TAG, FLOAT16, FLOAT32, FLOAT64, SAVED_BITS, decision_for, dropout_sweep, itemsize,
)

import torch
from torch.overrides import has_torch_function_unary

from fastdrop.core.dispatch import same_build
from fastdrop.formulas import alpha_affine, training_scale
from fastdrop.torch import internals

same_build(BUILD_TAG, __name__)

cdef enum:
    CARRIED = 8192          # elements below which PyTorch's product carries the gradient
    CARRIED_BYTES = 1024    # one bit for each of them

FORMS = ("dropout", "relu_dropout", "alpha_dropout")

cdef object Tensor = torch.Tensor, Parameter = torch.nn.Parameter
cdef object empty_like = torch.empty_like, mul = torch.mul, addcmul = torch.addcmul, relu = torch.relu
cdef object is_grad_enabled = torch.is_grad_enabled, increment_version = torch.autograd.graph.increment_version
cdef object strided = torch.strided, float32 = torch.float32
cdef object transforms_active = internals.transforms_active, count_modes = internals.count_modes
cdef object tracing_state = internals.tracing_state, only_devices = internals.only_devices
cdef object loses_tangent = internals.loses_tangent
cdef object is_lazy_copy = internals.is_lazy_copy, storage_address = internals.storage_address
cdef dict forward_mode = internals.forward_mode
cdef dict NUMBERS = {
    torch.float32: FLOAT32, torch.float64: FLOAT64, torch.float16: FLOAT16, torch.bfloat16: BFLOAT16,
}

with torch.inference_mode(False):   # the first import may be inside of inference mode, which these outlive
    new_bytes = torch.empty(1, dtype=torch.uint8, device="cpu").new_empty
    ONES = tuple([torch.ones(CARRIED, dtype=dtype, device="cpu") for dtype in (torch.float32, torch.float64)])

cdef object new_bits = new_bytes
cdef void* ones[2]
ones[<int> FLOAT32], ones[<int> FLOAT64] = <void*> <uintptr_t> ONES[0].data_ptr(), <void*> <uintptr_t> ONES[1].data_ptr()


class Words(threading.local):
    """Room for the words of a seed, on each thread: a draw lets other threads run."""

    def __init__(self):
        with torch.inference_mode(False):
            words = torch.empty(4, dtype=torch.int64, device="cpu")
        self.draw, self.address = words.random_, words.data_ptr()


cdef object words_of_thread = Words()


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


# A sweep and what it needs to run.
cdef struct Work:
    dropout_sweep sweep
    Plan plan
    Layout layout
    Strided strided


# --- who may take this way --------------------------------------------------------------------


cdef inline int element_type(x) except -2:
    """The kernel's number for a tensor's dtype; -1 for a tensor that only operators, or PyTorch's own, can take."""
    cdef int number
    if type(x) is not Tensor and type(x) is not Parameter:
        return -1
    dtype = x.dtype
    if dtype is float32:
        number = FLOAT32
    else:
        number = NUMBERS.get(dtype, -1)
    if number < 0 or not x.is_cpu or x.layout is not strided or x.is_nested or x.is_neg() or not has_memory(x):
        return -1
    return number


cdef inline bint has_memory(tensor) except -1:
    """Whether a tensor has elements, in memory: a wrapper of torch.func, of the old vmap or of a tracer has none."""
    try:
        return address_of(tensor) != 0
    except (RuntimeError, NotImplementedError):
        return False


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
    return has_torch_function_unary(x) and not only_devices()


# --- memory -----------------------------------------------------------------------------------


cdef inline uintptr_t address_of(tensor) except? 0:
    """The address of element 0, to read from it. It leaves a lazy copy lazy."""
    if is_lazy_copy(tensor):
        return storage_address(tensor) + tensor.storage_offset() * tensor.element_size() if tensor.numel() else 0
    return PyLong_AsUnsignedLongLongMask(tensor.data_ptr())


cdef inline uintptr_t writable(tensor) except? 0:
    return PyLong_AsUnsignedLongLongMask(tensor.data_ptr())


cdef inline ptrdiff_t packed(ptrdiff_t decisions) noexcept:
    """The bytes that have room for `decisions` bits. There are always two or more, for a compiler that knows the shape
    as a symbol: it need not ask whether the length is 0 or 1, and so does not make the answer a condition."""
    return decisions // 8 + 2


cdef inline void clear_rest(unsigned char* bits, ptrdiff_t decisions) noexcept:
    """Clear the bytes where the last bits will lie, and the rest of the room, which nothing else writes."""
    memset(bits + decisions // 8, 0, 2)


cdef ptrdiff_t decisions_of(x, int features) except -1:
    """The number of decisions on the elements of `x`."""
    cdef ptrdiff_t count = 1
    cdef int axis
    if features < 0:
        return x.numel()
    shape = x.shape
    for axis in range(features):
        count *= <ptrdiff_t> shape[axis]
    return count


# --- sweeps -----------------------------------------------------------------------------------


cdef int set_rule(Rule* rule, int form, int features, double keep_prob) except -1:
    rule.form, rule.features, rule.keep_prob = form, features, keep_prob
    rule.dropped = rule.shift = 0
    if form == 2:
        rule.scale, rule.dropped, rule.shift = alpha_affine(keep_prob)
    else:
        rule.scale = 1 / keep_prob if keep_prob else 0
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


cdef inline void take_decisions(Work* work, const unsigned char* bits, ptrdiff_t decisions) noexcept:
    """Let the sweep take its decisions from bits, each for as many successive elements as there are for it."""
    cdef ptrdiff_t length = work.plan.size // decisions
    work.sweep.decision = SAVED_BITS
    work.sweep.saved = <const char*> bits
    if length == 1:
        return
    work.layout.length = length
    work.layout.uniform = True
    work.layout.axes = decisions > 1
    work.layout.count[0], work.layout.stride[0] = decisions, 1
    work.plan.layout = &work.layout


cdef object aim(Work* work, x, y, residual):
    """Point the sweep at its tensors. Returns the room for pieces of strided ones, which the caller holds."""
    cdef bint plain_x = x is None or x.is_contiguous(), plain_y = y.is_contiguous()
    cdef bint plain_residual = residual is None or residual.is_contiguous()
    cdef int axis = 0
    work.sweep.y = <char*> writable(y)
    if x is not None:
        work.sweep.x = <const char*> address_of(x)
    if residual is not None:
        work.sweep.residual = <const char*> address_of(residual)
    if plain_x and plain_y and plain_residual:
        return None
    for length in y.shape:
        work.strided.count[axis] = length
        axis += 1
    work.strided.axes = axis
    work.strided.saved.data = NULL
    aim_operand(&work.strided.x, x, plain_x, <char*> work.sweep.x, itemsize(work.sweep.dtype))
    aim_operand(&work.strided.y, y, plain_y, work.sweep.y, itemsize(work.sweep.dtype))
    aim_operand(&work.strided.residual, residual, plain_residual, <char*> work.sweep.residual, itemsize(work.sweep.dtype))
    join_axes(&work.strided)
    work.strided.piece = piece_of(work.plan.size)
    room = PyBytes_FromStringAndSize(
        NULL, work.plan.threads * room_for(itemsize(work.sweep.dtype), work.strided.piece)
    )
    work.plan.strided = &work.strided
    work.plan.room = PyBytes_AS_STRING(room)
    return room


cdef int aim_operand(Operand* operand, tensor, bint plain, char* data, int size) except -1:
    cdef int axis = 0
    operand.data = NULL
    operand.swapped = False
    if plain:
        return 0
    operand.data = data
    for stride in tensor.stride():
        operand.stride[axis] = <ptrdiff_t> stride * size
        axis += 1
    return 0


cdef void run(Work* work) noexcept:
    """Run the sweep, which no signal interrupts. A short one keeps the GIL."""
    cdef float_mode mode = enter_default_mode()
    if not dispatch.run_whole(&work.plan):
        with nogil:
            run_slices(&work.plan)
    leave_default_mode(mode)


cdef void run_slices(Plan* plan) noexcept nogil:
    cdef ptrdiff_t first = 0
    dispatch.choose_stores(plan)
    while first < plan.size:
        first = dispatch.run_slice(plan, first)


cdef int draw_seed(uint64_t* seed, generator) except -1:
    """Draw the four words that operators.new_seed would draw: the low 32 bits of 64 that are random."""
    cdef const int64_t* words
    here = words_of_thread
    if generator is None:
        here.draw()
    else:
        here.draw(generator=generator)
    words = <const int64_t*> <uintptr_t> PyLong_AsUnsignedLongLongMask(here.address)
    seed[0] = <uint32_t> words[0] | <uint64_t> <uint32_t> words[1] << 32
    seed[1] = <uint32_t> words[2] | <uint64_t> <uint32_t> words[3] << 32
    return 0


cdef void draw_bits(unsigned char* bits, ptrdiff_t decisions, const Rule* rule, const uint64_t* seed) noexcept:
    """One bit for each decision, and no element."""
    cdef Work work
    begin(&work, FLOAT32, decisions)
    draw_decisions(&work, rule, seed)
    work.sweep.mask = bits
    run(&work)


cdef int forward(
    x, residual, y, const Rule* rule, int dtype, const uint64_t* seed, unsigned char* bits
) except -1:
    """Write a form of dropout of `x`, plus the residual if there is one, to `y`, and what passed to `bits` unless NULL."""
    cdef Work work
    cdef ptrdiff_t decisions
    begin(&work, dtype, x.numel())
    decisions = decisions_of(x, rule.features)
    work.sweep.relu = rule.form == 1
    work.sweep.scale, work.sweep.dropped, work.sweep.shift = rule.scale, rule.dropped, rule.shift
    _room = aim(&work, x, y, residual)
    if decisions == work.plan.size:
        draw_decisions(&work, rule, seed)
        work.sweep.mask = bits
    else:
        _bits = None
        if bits == NULL:
            _bits = PyBytes_FromStringAndSize(NULL, packed(decisions))
            bits = <unsigned char*> PyBytes_AS_STRING(_bits)
        draw_bits(bits, decisions, rule, seed)
        take_decisions(&work, bits, decisions)
    run(&work)
    return 0


cdef int backward(dy, dx, const unsigned char* bits, const Rule* rule, int dtype) except -1:
    """Write the gradient of a form of dropout, which is that of its scale alone, to `dx`."""
    cdef Work work
    begin(&work, dtype, dy.numel())
    work.sweep.scale = rule.scale
    _room = aim(&work, dy, dx, None)
    take_decisions(&work, bits, decisions_of(dy, rule.features))
    run(&work)
    return 0


# --- results ----------------------------------------------------------------------------------


cdef object detached(x, residual, const Rule* rule, int dtype, generator, bint inplace):
    """The result for an input whose gradient nobody wants."""
    cdef uint64_t seed[2]
    y = x if inplace else empty_like(x)
    draw_seed(seed, generator)
    if inplace:
        increment_version(x)
    forward(x, residual, y, rule, dtype, seed, NULL)
    return y


cdef object carried(x, residual, const Rule* rule, int dtype, generator, bint inplace):
    """`x * noise`, for the node that PyTorch makes of it, with the kernel's values written over the product's.

    The product's own values may be NaN or -0 where an element is dropped.
    """
    cdef uint64_t seed[2]
    cdef unsigned char bits[CARRIED_BYTES + 2]
    cdef Work work
    cdef ptrdiff_t size = x.numel(), decisions = decisions_of(x, rule.features)
    noise = empty_like(x) if decisions == size else x.new_empty(noise_shape(x, rule.features))
    draw_seed(seed, generator)
    if rule.form == 1:
        forward(x, None, noise, rule, dtype, seed, bits)
    else:
        draw_bits(bits, decisions, rule, seed)
    # The noise is the scale where kept, else 0.
    begin(&work, dtype, decisions)
    work.sweep.scale = rule.scale
    _room = aim(&work, None, noise, None)
    work.sweep.x = <const char*> ones[dtype]
    take_decisions(&work, bits, decisions)
    run(&work)
    y = x.mul_(noise) if inplace else mul(x, noise) if residual is None else addcmul(residual, x, noise)
    if type(y) is not Tensor or y.dtype is not x.dtype:
        return y
    # What x was is scaled already where it was multiplied in place.
    begin(&work, dtype, size)
    work.sweep.scale = 1 if inplace else rule.scale
    work.sweep.dropped, work.sweep.shift = rule.dropped, rule.shift
    _room = aim(&work, x, y, residual)
    take_decisions(&work, bits, decisions)
    run(&work)
    return y


cdef list noise_shape(x, int features):
    """One factor for each decision, to be broadcast."""
    cdef list shape = list(x.shape)
    cdef int axis
    for axis in range(features, len(shape)):
        shape[axis] = 1
    return shape


@cython.final
@cython.no_gc
cdef class Call:
    """What an autograd.Function is given beside the tensors."""
    cdef Rule rule
    cdef int dtype
    cdef object generator


def function_forward(ctx, x, residual, Call call):
    """`forward` of the autograd.Function that saves bits."""
    cdef uint64_t seed[2]
    y = empty_like(x)
    bits = new_bits(packed(decisions_of(x, call.rule.features)))
    draw_seed(seed, call.generator)
    call.generator = None
    forward(x, residual, y, &call.rule, call.dtype, seed, <unsigned char*> writable(bits))
    ctx.save_for_backward(bits)
    ctx.rule = call.rule.keep_prob, FORMS[call.rule.form], call.rule.features
    ctx.call = call
    return y


def function_backward(ctx, dy, bits):
    """The gradient, or None if it is the operators' to compute."""
    cdef Call call = ctx.call
    if dy.requires_grad and is_grad_enabled() or not is_eager() or element_type(dy) != call.dtype:
        return None
    # Hooks on saved tensors may give back anything.
    if type(bits) is not Tensor or not bits.is_cpu or not bits.is_contiguous() or not has_memory(bits):
        return None
    dx = empty_like(dy)
    if not dy.is_contiguous() and 0 in dy.stride():     # one value for all, such as the gradient of a sum
        dy = dy.contiguous()
    backward(dy, dx, <const unsigned char*> address_of(bits), &call.rule, call.dtype)
    return dx


cdef object apply = None


def bind(function):
    """Give the autograd.Function of operators.py, whose gradient may be the operators'."""
    global apply
    # A Function's own `apply` looks again, in Python, for transforms that are_eager has ruled out.
    apply = super(torch.autograd.Function, function).apply


cdef inline bint takes(x, int features) except -1:
    """Whether the shape is one that sweeps know."""
    cdef int axes = x.dim()
    return features <= axes and axes <= MAX_AXES


def drop(x, p, training, inplace, generator, int form, int features):
    """A form of dropout of `x`, or None if the call is the operators' or PyTorch's own.

    `features` is the number of leading axes that have decisions of their own, or -1.
    """
    cdef Rule rule
    cdef int dtype
    cdef double rate
    if type(p) is not float:
        return None
    rate = p
    if not (0 <= rate <= 1) or (training is not True and training is not False):
        return None
    dtype = element_type(x)
    if dtype < 0 or not is_eager() or is_overridden(x):
        return None
    if training is False or rate == 0:
        return x if form != 1 else x.relu_() if inplace else relu(x)
    if not takes(x, features) or (inplace and not (x.is_contiguous() and writes(x))):
        return None
    set_rule(&rule, form, features, 1 - rate)
    return result(x, None, &rule, dtype, generator, bool(inplace))


cdef bint writes(x) except -1:
    """Whether `x` may be overwritten without a word: not an inference tensor, which PyTorch may have to refuse."""
    return not x.is_inference()


cdef object result(x, residual, const Rule* rule, int dtype, generator, bint inplace):
    cdef Call call
    cdef bint derived = is_grad_enabled() and (x.requires_grad or (residual is not None and residual.requires_grad))
    if not derived:
        return detached(x, residual, rule, dtype, generator, inplace)
    if dtype <= FLOAT64 and x.numel() < CARRIED:
        return carried(x, residual, rule, dtype, generator, inplace)
    call = Call.__new__(Call)
    call.rule, call.dtype, call.generator = rule[0], dtype, generator
    y = apply(x, residual, call)
    return x.copy_(y) if inplace else y


def drop_add(x, residual, p, training, generator):
    """`drop` with a residual of the same shape and dtype."""
    cdef Rule rule
    cdef int dtype
    cdef double rate
    if type(p) is not float or training is not True:
        return None
    rate = p
    if not 0 < rate <= 1:
        return None
    dtype = element_type(x)
    if dtype < 0 or element_type(residual) != dtype or not is_eager() or is_overridden(x):
        return None
    if not takes(x, -1) or x.shape != residual.shape:
        return None
    set_rule(&rule, 0, -1, 1 - rate)
    return result(x, residual, &rule, dtype, generator, False)


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
    cdef uint64_t seed[2]
    cdef ptrdiff_t decisions
    if form == "relu_dropout" and features >= 0:
        raise ValueError(f"features must be -1 for relu_dropout, which decides for each element, got {features}")
    refuse_tangent(x, residual)
    set_rule(&rule, FORMS.index(form), features, keep_prob)
    decisions = decisions_of(x, features)
    y, bits = empty_like(x), new_bits(packed(decisions))
    clear_rest(<unsigned char*> writable(bits), decisions)
    read_seed(seed, words)
    if x.numel():
        forward(x, residual, y, &rule, NUMBERS[x.dtype], seed, <unsigned char*> writable(bits))
    return y, bits


def operator_backward(dy, bits, double keep_prob, form, int features):
    """The body of the operator fastdrop::backward."""
    cdef Rule rule
    refuse_tangent(dy, None)
    set_rule(&rule, FORMS.index(form), features, keep_prob)
    dx, bits = empty_like(dy), bits.contiguous()
    if dy.numel():
        backward(dy, dx, <const unsigned char*> address_of(bits), &rule, NUMBERS[dy.dtype])
    return dx
