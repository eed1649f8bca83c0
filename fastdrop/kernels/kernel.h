/* What a kernel is asked to do: the one structure that the Python side and every kernel share. */
#ifndef FASTDROP_KERNEL_H
#define FASTDROP_KERNEL_H

#include <stddef.h>
#include <stdint.h>

enum element_type { FLOAT32, FLOAT64 };

/* Where the decision on an element comes from. GAUSSIAN: there is none, every element is multiplied
 * by 1 + scale * normal. */
enum decision { DRAWN, SAVED_BITS, SAVED_OUTPUT, ALL_KEPT, NONE_KEPT, GAUSSIAN };

typedef struct {
    int dtype;          /* an element_type */
    int relu;           /* whether x <= 0 is dropped too */
    int decision;
    int streaming;      /* whether results bypass the cache (y is then aligned to 64 bytes) */
    const char *x;      /* elements, or NULL where only bits are wanted */
    char *y;            /* results; may be x */
    double scale;       /* of what passes, not yet rounded to the dtype */
    const char *saved;  /* packed bits or output elements */
    unsigned char *mask; /* packed bits of what passed, or NULL */
    uint64_t first_bit; /* the index of element 0 in `mask` and in saved bits */
    uint64_t seed[2];   /* low, high */
    uint64_t position;  /* of element 0 in the stream */
    uint64_t threshold; /* an element is kept when its uniform is below it */
} dropout_pass;

typedef struct {
    const char *name;
    /* Elements first, ..., last - 1 of a pass. Runs of one pass may go to several threads if they
     * meet where first_bit + first is a multiple of 8. */
    void (*run)(const dropout_pass *pass, ptrdiff_t first, ptrdiff_t last);
} dropout_kernel;

#endif
