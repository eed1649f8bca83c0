/* A sweep is one pass of a kernel over arrays. This header declares what a sweep consists of and what a kernel offers.
 * The Python side and the kernels share nothing else. */
#ifndef FASTDROP_SWEEP_H
#define FASTDROP_SWEEP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Elements of float16 and bfloat16 are computed in float32, and a result is rounded once. */
enum element_type { FLOAT32, FLOAT64, FLOAT16, BFLOAT16, ELEMENT_TYPES };

/* Where the decision on an element comes from. GAUSSIAN means that there is none: every element is multiplied by
 * 1 + scale * normal. */
enum decision { DRAWN, SAVED_BITS, SAVED_OUTPUT, ALL_KEPT, NONE_KEPT, GAUSSIAN };

/* Element n of a sweep has bit n % 8 of byte n / 8 of `mask`, whatever range of the sweep is computed. Threads meet at
 * multiples of UNIT elements, so no two threads write to one byte of the mask. */
enum { UNIT = 4096 };
typedef char unit_is_whole_bytes_of_the_mask[UNIT % 8 == 0 ? 1 : -1];

/* A block of the generator has one bit for each of BLOCK elements. */
enum { BLOCK = 128 };

/* An element that is kept (and passes the ReLU) becomes scale * (x + bias). Any other element becomes `dropped`. Then
 * `shift` and the residual are added. What a sweep does without is 0 or NULL. */
typedef struct {
    /* An element_type, which all arrays of elements have. */
    int dtype;
    /* Whether elements with x + bias <= 0 are dropped too. */
    int relu;
    /* Where the decisions come from, as an enum decision. */
    int decision;
    /* Whether results bypass the cache. Then the address of y is a multiple of the size of an element. */
    int streaming;
    /* The elements. This is NULL where only the mask is wanted. */
    const char *x;
    /* The results, which may overwrite x or the residual. */
    char *y;
    /* These three numbers are not rounded to the dtype yet. */
    double scale;
    double dropped;
    double shift;
    /* The elements that are added last. */
    const char *residual;
    /* The elements of a row, where rows have gaps between them; else 0. */
    ptrdiff_t row;
    /* The bytes from the end of a row of an array to its next row. The saved elements have no gaps, and neither has any
     * array of a GAUSSIAN sweep. */
    ptrdiff_t x_gap;
    ptrdiff_t y_gap;
    ptrdiff_t residual_gap;
    /* The bias, in the dtype of the arithmetic. Element n has the (n % period)-th number. */
    const char *bias;
    /* The length of the bias, which is at least 16. The first 16 numbers follow once more after the last. */
    ptrdiff_t period;
    /* The packed bits of SAVED_BITS, or the elements of SAVED_OUTPUT. */
    const char *saved;
    /* The index of element 0's bit in the saved bits, modulo 2**64. */
    uint64_t saved_bit;
    /* Packed bits, which are set for the elements that are kept and pass the ReLU. */
    unsigned char *mask;
    /* The low and the high 64 bits of the seed. */
    uint64_t seed[2];
    /* Element n draws at position + (n - base) + (n - base) / stretch * jump, modulo 2**64. Where `stretch` is 0, it
     * draws at position + (n - base). */
    uint64_t position;
    /* The element that draws at `position`. Where `stretch` is not 0, no range begins before it. */
    ptrdiff_t base;
    /* The number of elements with successive positions before the stream jumps. 0 stands for all elements. */
    ptrdiff_t stretch;
    /* The number of positions that are left out between two stretches. */
    uint64_t jump;
    /* An element is kept when its 64-bit uniform is below this. */
    uint64_t threshold;
} dropout_sweep;

typedef struct {
    /* The name of the instruction set. */
    const char *name;
    /* About how many picoseconds it takes to draw a decision and a normal number, which decides on threads alone. */
    int draw_cost;
    int normal_cost;
    /* Compute elements first, ..., last - 1 of a sweep. Either `first` is a multiple of 8, or this thread has computed
     * the elements before it: the bits before the first one's, in its byte of the mask, stay as they are. */
    void (*sweep_range)(const dropout_sweep *sweep, ptrdiff_t first, ptrdiff_t last);
    /* Make results that bypassed the cache visible to other threads. A thread calls it after its last range. */
    void (*finish_streaming)(void);
    /* Add rows of elements, which begin `distance` bytes apart, to the sums of their columns, row after row. */
    void (*add_to_sums)(int dtype, const char *elements, ptrdiff_t distance, ptrdiff_t rows, double *sums,
                        ptrdiff_t columns);
    /* Round `count` sums to elements. */
    void (*round_sums)(int dtype, const double *sums, char *elements, ptrdiff_t count);
} dropout_kernel;

/* Return what decides whether an element is kept with a probability, and set its threshold, floor(keep_prob * 2**64).
 * Return -1 where keep_prob is not in [0, 1]. This works on the bits of the float64, so that no floating-point mode
 * can change it. */
static inline int decision_for(double keep_prob, uint64_t *threshold)
{
    const uint64_t one = (uint64_t)1023 << 52, minus_zero = (uint64_t)1 << 63;
    uint64_t bits, significand;
    int shift;
    memcpy(&bits, &keep_prob, 8);
    *threshold = 0;
    if (bits == minus_zero)
        return NONE_KEPT;
    if (bits > one)
        return -1;
    if (bits == one)
        return ALL_KEPT;
    /* keep_prob is significand * 2**(shift - 64), and shift is at most 11. A shift below -52 leaves no bit, and every
     * subnormal number has one. */
    significand = (bits & (((uint64_t)1 << 52) - 1)) | ((uint64_t)1 << 52);
    shift = (int)(bits >> 52) - 1075 + 64;
    if (shift >= 0)
        *threshold = significand << shift;
    else if (shift >= -52)
        *threshold = significand >> -shift;
    return *threshold ? DRAWN : NONE_KEPT;
}

#endif
