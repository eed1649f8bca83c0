/* The constants of fastdrop's C interface; the functions are in capi.pxd. */
#ifndef FASTDROP_H
#define FASTDROP_H

#include <stdint.h>

/* Grows with every change that compiled callers would notice; new names alone do not count. */
#define FASTDROP_API_VERSION 1

/* What a function returns, and the version once more. A capsule of __pyx_capi__ has the signature of its function as its
 * name, so this name is in it: Cython code that was compiled for another version is refused when it is imported. */
typedef int fastdrop_status_v1;

enum {
    FASTDROP_FLOAT32 = 0,
    FASTDROP_FLOAT64 = 1,
    FASTDROP_FLOAT16 = 2,
    FASTDROP_BFLOAT16 = 3
};

/* What a function returns: it has written nothing unless it is FASTDROP_OK. */
enum {
    FASTDROP_OK = 0,
    FASTDROP_BAD_DTYPE = 1,     /* none of the above */
    FASTDROP_BAD_SIZE = 2,      /* negative */
    FASTDROP_BAD_KEEP_PROB = 3, /* not in [0, 1], or NaN */
    FASTDROP_BAD_OFFSET = 4,    /* the last element would lie past position 2**64 */
    FASTDROP_BAD_POINTER = 5    /* NULL where elements or bits were expected */
};

/* Three 64-bit words, so that an array of them serves as well: where element 0 draws from. */
typedef struct {
    uint64_t seed[2]; /* low, high */
    uint64_t offset;
} fastdrop_stream;

#endif
