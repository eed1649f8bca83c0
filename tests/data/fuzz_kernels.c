/* Every kernel that this CPU has computes a sweep that is made of bytes. Results and bits must be the generic kernel's.
 *
 * tests/guided.py links this with libFuzzer, the kernels, and Python, which the modules need to load. Arrays are not a
 * byte longer than they have to be, so the address sanitizer sees what strays.
 */
#include <Python.h>

#include "cpu_features.h"
#include "sweep.h"

PyMODINIT_FUNC PyInit_generic(void);
PyMODINIT_FUNC PyInit_avx2(void);
PyMODINIT_FUNC PyInit_avx2_vaes(void);
PyMODINIT_FUNC PyInit_avx512(void);

static const struct { const char *name; PyObject *(*init)(void); } modules[] = {
    {"generic", PyInit_generic}, /* It is first because the others are compared with it. */
    {"avx2", PyInit_avx2},
    {"avx2_vaes", PyInit_avx2_vaes},
    {"avx512", PyInit_avx512},
};
enum { MODULES = sizeof modules / sizeof *modules, MOST = 9000, ROOM = 16 };

static dropout_kernel *kernels[MODULES];
static int count_of_kernels;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < MODULES; i++) PyImport_AppendInittab(modules[i].name, modules[i].init);
    Py_InitializeEx(0);
    for (int i = 0; i < MODULES; i++) {
        if (i && !cpu_has(modules[i].name)) continue;
        PyObject *module = PyImport_ImportModule(modules[i].name);
        PyObject *capsule = module ? PyObject_GetAttrString(module, "kernel") : NULL;
        kernels[count_of_kernels] = capsule ? PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)) : NULL;
        if (!kernels[count_of_kernels]) {
            PyErr_Print();
            abort();
        }
        fprintf(stderr, "kernel %s\n", kernels[count_of_kernels++]->name);
    }
    return 0;
}

/* --- a sweep from bytes, of which missing ones are 0 ------------------------------------------ */

typedef struct {
    uint64_t position, jump, threshold, seed[2], values;
    uint16_t size, split, stretch, period, saved_bit;
    uint8_t dtype, decision, scale, dropped, shift, x_at, y_at, saved_at;
    uint8_t relu : 1, streaming : 1, masked : 1, biased : 1, residual : 1, bits_alone : 1;
    uint8_t place; /* The result is apart, on x, or on the residual. */
} choices;

static const double numbers[] = {0, 1, 1 / 0.9, 2, -1.7580993408473766, 1e-40, 1e30, 0.3};
#define NUMBER(choice) numbers[(choice) % (sizeof numbers / sizeof *numbers)]

/* SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). */
static uint64_t next_word(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

typedef struct { char *memory, *start; size_t size; } array;

/* Return `size` bytes at an address that is `at` after a multiple of 64. Their end is the end of what may be touched. */
static array array_of(size_t size, unsigned at)
{
    array made = {.size = at % 64 + size};
    if (posix_memalign((void **)&made.memory, 64, made.size ? made.size : 1)) abort();
    memset(made.memory, 0xA5, made.size);
    made.start = made.memory + at % 64;
    return made;
}

static array copy_of(array from)
{
    array made = array_of(from.size - (size_t)(from.start - from.memory), (unsigned)(from.start - from.memory));
    memcpy(made.memory, from.memory, from.size);
    return made;
}

/* Fill an array with any bit patterns, the fuzzer's own bytes first. */
static void fill_with_bits(array to, size_t size, uint64_t state, const uint8_t *bytes, size_t given)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = next_word(&state);
        memcpy(to.start + i, &word, size - i < 8 ? size - i : 8);
    }
    if (given && size) memcpy(to.start, bytes, given < size ? given : size);
}

/* Fill an array with small numbers, because C leaves open which of two NaNs their sum is. */
static void fill_with_numbers(array to, int dtype, size_t count, uint64_t state)
{
    for (size_t i = 0; i < count; i++) {
        double value = (double)(int64_t)next_word(&state) * 0x1p-62;
        float narrow = (float)value;
        uint16_t half = (uint16_t)(0x3C00 | next_word(&state) % 0x8400); /* finite in either 16-bit dtype */
        half = half & 0x7C00 && (half & 0x7C00) == 0x7C00 ? 0x3C00 : half;
        if (dtype == FLOAT64) memcpy(to.start + 8 * i, &value, 8);
        else if (dtype == FLOAT32) memcpy(to.start + 4 * i, &narrow, 4);
        else memcpy(to.start + 2 * i, &half, 2);
    }
}

static dropout_sweep sweep_of(choices *c)
{
    dropout_sweep sweep = {
        .dtype = c->dtype % 4, .decision = c->decision % 6, .relu = c->relu, .scale = NUMBER(c->scale),
        .dropped = NUMBER(c->dropped), .shift = NUMBER(c->shift),
        .saved_bit = c->saved_bit % 600, .seed = {c->seed[0], c->seed[1]}, .position = c->position,
        .stretch = c->stretch % 6000, .jump = c->jump, .threshold = c->threshold,
    };
    c->size %= MOST;
    c->bits_alone = c->bits_alone && (sweep.decision == DRAWN || sweep.decision == ALL_KEPT || sweep.decision == NONE_KEPT);
    c->masked = (c->masked || c->bits_alone) && sweep.decision != GAUSSIAN;
    if (c->bits_alone) sweep.dtype = FLOAT32, sweep.relu = c->place = 0;
    int size = sweep.dtype == FLOAT64 ? 8 : sweep.dtype == FLOAT32 ? 4 : 2;
    if (c->place % 3 == 1) c->y_at = c->x_at;
    sweep.streaming = c->streaming && c->y_at % size == 0;
    return sweep;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t given)
{
    choices c = {0};
    size_t header = given < sizeof c ? given : sizeof c;
    memcpy(&c, bytes, header);
    dropout_sweep sweep = sweep_of(&c);
    size_t itemsize = sweep.dtype == FLOAT64 ? 8 : sweep.dtype == FLOAT32 ? 4 : 2;
    size_t size = c.size, bytes_of_bits = (size + 7) / 8;
    int wide = sweep.dtype == FLOAT64 ? FLOAT64 : FLOAT32;
    size_t period = 16 + c.period % 5000, bias_size = wide == FLOAT64 ? 8 : 4;

    array x = array_of(size * itemsize, c.x_at), blank = array_of(size * itemsize, c.y_at);
    array residual = array_of(size * itemsize, c.y_at), bias = array_of((period + ROOM) * bias_size, 0);
    array saved = array_of(sweep.decision == SAVED_OUTPUT ? size * itemsize : (sweep.saved_bit + size + 7) / 8, c.saved_at);
    array blank_bits = array_of(bytes_of_bits, c.values % 64);
    fill_with_bits(x, size * itemsize, c.values, bytes + header, given - header);
    fill_with_bits(saved, saved.size - c.saved_at % 64, c.values + 1, bytes + header, given - header);
    fill_with_numbers(residual, sweep.dtype, size, c.values + 2);
    fill_with_numbers(bias, wide, period, c.values + 3);
    memcpy(bias.start + period * bias_size, bias.start, ROOM * bias_size);
    sweep.period = (ptrdiff_t)period;
    sweep.saved = saved.start;
    if (c.biased && sweep.decision != GAUSSIAN) sweep.bias = bias.start;

    array first_y = {0}, first_bits = {0};
    for (int i = 0; i < count_of_kernels; i++) {
        dropout_sweep own = sweep;
        array own_x = copy_of(x), own_residual = copy_of(residual), own_bits = copy_of(blank_bits);
        array y = c.place % 3 == 1 ? own_x : c.place % 3 == 2 ? own_residual : copy_of(blank);
        if (!c.bits_alone) own.x = own_x.start, own.y = y.start;
        if (!c.bits_alone && (c.residual || c.place % 3 == 2) && sweep.decision != GAUSSIAN)
            own.residual = own_residual.start;
        if (c.masked) own.mask = (unsigned char *)own_bits.start;
        ptrdiff_t split = size ? c.split % (ptrdiff_t)size : 0;
        split -= split % 8;
        if (split > 0) kernels[i]->sweep_range(&own, 0, split);
        if (size) kernels[i]->sweep_range(&own, split > 0 ? split : 0, (ptrdiff_t)size);
        kernels[i]->finish_streaming();
        if (i && (memcmp(y.memory, first_y.memory, y.size) || memcmp(own_bits.memory, first_bits.memory, own_bits.size))) {
            fprintf(stderr, "%s: not what generic gives\n", kernels[i]->name);
            abort();
        }
        if (y.memory != own_x.memory) free(own_x.memory);
        if (y.memory != own_residual.memory) free(own_residual.memory);
        if (i) free(y.memory), free(own_bits.memory);
        else first_y = y, first_bits = own_bits;
    }
    array all[] = {x, blank, residual, bias, saved, blank_bits, first_y, first_bits};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i].memory);
    return 0;
}
