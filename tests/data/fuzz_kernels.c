/* A pass made from bytes, on every kernel that this CPU has: results and bits have to be those of the generic one.
 *
 * For libFuzzer, linked with the kernels and with Python, which the modules need to load (tests/guided.py).
 * Arrays are as long as they have to be and not a byte longer, so the address sanitizer sees what strays.
 */
#include <Python.h>

#include "cpu_features.h"
#include "sweep.h"

PyMODINIT_FUNC PyInit_generic(void);
PyMODINIT_FUNC PyInit_avx2(void);
PyMODINIT_FUNC PyInit_avx2_vaes(void);
PyMODINIT_FUNC PyInit_avx512(void);

static const struct { const char *name; PyObject *(*init)(void); } modules[] = {
    {"generic", PyInit_generic}, /* first: the others are held to it */
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

/* --- a pass from bytes; what is missing is 0 ------------------------------------------------ */

typedef struct {
    uint64_t position, jump, threshold, seed[2], values;
    uint16_t size, split, stretch, period, saved_bit;
    uint8_t dtype, decision, scale, dropped, shift, x_at, y_at, saved_at;
    uint8_t relu : 1, streaming : 1, masked : 1, biased : 1, residual : 1, bits_alone : 1;
    uint8_t place; /* of the result: apart, on x, on the residual */
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

/* `size` bytes at an address that is `at` after a multiple of 64, up to the end of what may be touched. */
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

/* Any bit patterns, the fuzzer's own bytes first. */
static void fill_with_bits(array to, size_t size, uint64_t state, const uint8_t *bytes, size_t given)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = next_word(&state);
        memcpy(to.start + i, &word, size - i < 8 ? size - i : 8);
    }
    if (given && size) memcpy(to.start, bytes, given < size ? given : size);
}

/* Small numbers: of two NaNs that are added, C leaves open which is the sum. */
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

static dropout_sweep pass_of(choices *c)
{
    dropout_sweep pass = {
        .dtype = c->dtype % 4, .decision = c->decision % 6, .relu = c->relu, .scale = NUMBER(c->scale),
        .dropped = NUMBER(c->dropped), .shift = NUMBER(c->shift),
        .saved_bit = c->saved_bit % 600, .seed = {c->seed[0], c->seed[1]}, .position = c->position,
        .stretch = c->stretch % 6000, .jump = c->jump, .threshold = c->threshold,
    };
    c->size %= MOST;
    c->bits_alone = c->bits_alone && (pass.decision == DRAWN || pass.decision == ALL_KEPT || pass.decision == NONE_KEPT);
    c->masked = (c->masked || c->bits_alone) && pass.decision != GAUSSIAN;
    if (c->bits_alone) pass.dtype = FLOAT32, pass.relu = c->place = 0;
    int size = pass.dtype == FLOAT64 ? 8 : pass.dtype == FLOAT32 ? 4 : 2;
    if (c->place % 3 == 1) c->y_at = c->x_at;
    pass.streaming = c->streaming && c->y_at % size == 0;
    return pass;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t given)
{
    choices c = {0};
    size_t header = given < sizeof c ? given : sizeof c;
    memcpy(&c, bytes, header);
    dropout_sweep pass = pass_of(&c);
    size_t itemsize = pass.dtype == FLOAT64 ? 8 : pass.dtype == FLOAT32 ? 4 : 2;
    size_t size = c.size, bytes_of_bits = (size + 7) / 8;
    int wide = pass.dtype == FLOAT64 ? FLOAT64 : FLOAT32;
    size_t period = 16 + c.period % 5000, bias_size = wide == FLOAT64 ? 8 : 4;

    array x = array_of(size * itemsize, c.x_at), blank = array_of(size * itemsize, c.y_at);
    array residual = array_of(size * itemsize, c.y_at), bias = array_of((period + ROOM) * bias_size, 0);
    array saved = array_of(pass.decision == SAVED_OUTPUT ? size * itemsize : (pass.saved_bit + size + 7) / 8, c.saved_at);
    array blank_bits = array_of(bytes_of_bits, c.values % 64);
    fill_with_bits(x, size * itemsize, c.values, bytes + header, given - header);
    fill_with_bits(saved, saved.size - c.saved_at % 64, c.values + 1, bytes + header, given - header);
    fill_with_numbers(residual, pass.dtype, size, c.values + 2);
    fill_with_numbers(bias, wide, period, c.values + 3);
    memcpy(bias.start + period * bias_size, bias.start, ROOM * bias_size);
    pass.period = (ptrdiff_t)period;
    pass.saved = saved.start;
    if (c.biased && pass.decision != GAUSSIAN) pass.bias = bias.start;

    array first_y = {0}, first_bits = {0};
    for (int i = 0; i < count_of_kernels; i++) {
        dropout_sweep sweep = pass;
        array own_x = copy_of(x), own_residual = copy_of(residual), own_bits = copy_of(blank_bits);
        array y = c.place % 3 == 1 ? own_x : c.place % 3 == 2 ? own_residual : copy_of(blank);
        if (!c.bits_alone) sweep.x = own_x.start, sweep.y = y.start;
        if (!c.bits_alone && (c.residual || c.place % 3 == 2) && pass.decision != GAUSSIAN)
            sweep.residual = own_residual.start;
        if (c.masked) sweep.mask = (unsigned char *)own_bits.start;
        ptrdiff_t split = size ? c.split % (ptrdiff_t)size : 0;
        split -= split % 8;
        if (split > 0) kernels[i]->run(&sweep, 0, split);
        if (size) kernels[i]->run(&sweep, split > 0 ? split : 0, (ptrdiff_t)size);
        kernels[i]->finish();
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
