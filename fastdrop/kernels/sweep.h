/* What a kernel is asked to do: the one structure that the Python side and every kernel share. */
#ifndef FASTDROP_SWEEP_H
#define FASTDROP_SWEEP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* float16 and bfloat16 are computed in float32, and rounded once. */
enum element_type { FLOAT32, FLOAT64, FLOAT16, BFLOAT16, ELEMENT_TYPES };

/* Where the decision on an element comes from. GAUSSIAN: there is none, every element is multiplied
 * by 1 + scale * normal. */
enum decision { DRAWN, SAVED_BITS, SAVED_OUTPUT, ALL_KEPT, NONE_KEPT, GAUSSIAN };

/* Element n of a pass has bit n % 8 of byte n / 8 of `mask`, whatever part of the pass a run computes. Runs on
 * several threads meet at multiples of UNIT elements, so that no two threads write one byte of the mask. */
enum { UNIT = 4096 };
typedef char unit_is_whole_bytes_of_the_mask[UNIT % 8 == 0 ? 1 : -1];

/* An element that is kept (and passes the ReLU) becomes scale * (x + bias), one that is not becomes
 * `dropped`; then come + shift and + residual. What is absent is 0 or NULL. */
typedef struct {
    int dtype;          /* an element_type */
    int relu;           /* whether x + bias <= 0 is dropped too */
    int decision;
    int streaming;      /* whether results bypass the cache (y is then aligned to its elements) */
    const char *x;      /* elements, or NULL where only bits are wanted */
    char *y;            /* results; may be x or the residual */
    double scale;       /* these three are not yet rounded to the dtype */
    double dropped;
    double shift;
    const char *residual; /* elements */
    const char *bias;   /* element n has the n % period-th, in the dtype of the arithmetic; followed by */
    ptrdiff_t period;   /* the first 16 again. At least 16. */
    const char *saved;  /* packed bits or output elements */
    uint64_t saved_bit; /* the index of element 0 in saved bits, modulo 2**64 */
    unsigned char *mask; /* packed bits of what passed, or NULL */
    uint64_t seed[2];   /* low, high */
    /* Element n draws at position + (n - base) + (n - base) / stretch * jump, modulo 2**64; where stretch is 0,
     * at position + (n - base). No run with a stretch begins before `base`. */
    uint64_t position;
    ptrdiff_t base;     /* an element */
    ptrdiff_t stretch;  /* elements with successive positions, before the stream jumps; 0: all of them */
    uint64_t jump;      /* positions that are left out between two stretches */
    uint64_t threshold; /* an element is kept when its uniform is below it */
} dropout_sweep;

typedef struct {
    const char *name;
    /* Elements first, ..., last - 1 of a pass. `first` is a multiple of 8, or this thread has run the elements
     * before it: the bits before the first one's, in its byte of the mask, stay as they are. */
    void (*run)(const dropout_sweep *sweep, ptrdiff_t first, ptrdiff_t last);
    /* After the last of a thread's runs that bypass the cache. */
    void (*finish)(void);
    /* Add `count` elements to as many sums. */
    void (*add)(int dtype, const char *elements, double *sums, ptrdiff_t count);
    /* Round `count` sums to elements. */
    void (*round)(int dtype, const double *sums, char *elements, ptrdiff_t count);
} dropout_kernel;

/* What decides whether an element is kept with a probability, and its threshold, floor(keep_prob * 2**64); -1 where
 * keep_prob is not in [0, 1]. It works on the bits of the float64, so that no floating-point mode can change it. */
static inline int decision_for(double keep_prob, uint64_t *threshold)
{
    const uint64_t one = (uint64_t)1023 << 52, sign = (uint64_t)1 << 63;
    uint64_t bits, significand;
    int shift;
    memcpy(&bits, &keep_prob, 8);
    *threshold = 0;
    if (bits == sign) /* -0.0 */
        return NONE_KEPT;
    if (bits > one)
        return -1;
    if (bits == one)
        return ALL_KEPT;
    /* keep_prob is significand * 2**(shift - 64), and shift is at most 11. Below -52 nothing is left, which is so for
     * every subnormal number. */
    significand = (bits & (((uint64_t)1 << 52) - 1)) | ((uint64_t)1 << 52);
    shift = (int)(bits >> 52) - 1075 + 64;
    if (shift >= 0)
        *threshold = significand << shift;
    else if (shift >= -52)
        *threshold = significand >> -shift;
    return *threshold ? DRAWN : NONE_KEPT;
}

#endif
