/* What a kernel is asked to do: the one structure that the Python side and every kernel share. */
#ifndef FASTDROP_KERNEL_H
#define FASTDROP_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/* float16 and bfloat16 are computed in float32, and rounded once. */
enum element_type { FLOAT32, FLOAT64, FLOAT16, BFLOAT16 };

/* Where the decision on an element comes from. GAUSSIAN: there is none, every element is multiplied
 * by 1 + scale * normal. */
enum decision { DRAWN, SAVED_BITS, SAVED_OUTPUT, ALL_KEPT, NONE_KEPT, GAUSSIAN };

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
    uint64_t saved_bit; /* the index of element 0 in saved bits */
    unsigned char *mask; /* packed bits of what passed, or NULL */
    uint64_t first_bit; /* the index of element 0 in `mask` */
    uint64_t seed[2];   /* low, high */
    uint64_t position;  /* of element 0 in the stream */
    ptrdiff_t row;      /* elements with successive positions, before the stream jumps; 0: all of them */
    uint64_t jump;      /* positions between two rows */
    uint64_t threshold; /* an element is kept when its uniform is below it */
} dropout_pass;

typedef struct {
    const char *name;
    /* Elements first, ..., last - 1 of a pass. Runs of one pass may go to several threads if they
     * meet where first_bit + first is a multiple of 8. */
    void (*run)(const dropout_pass *pass, ptrdiff_t first, ptrdiff_t last);
    /* After the last of a thread's runs that bypass the cache. */
    void (*finish)(void);
    /* Add `count` elements to as many sums. */
    void (*add)(int dtype, const char *elements, double *sums, ptrdiff_t count);
} dropout_kernel;

#endif
