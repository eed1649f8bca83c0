/* What every vocabulary is written with. */
#ifndef FASTDROP_COMMON_H
#define FASTDROP_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER)
#include <intrin.h>
#endif

#include "../kernel.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define VOCABULARY static __forceinline
#else
#define VOCABULARY static inline __attribute__((always_inline, unused))
#endif

VOCABULARY int lowest_bit(uint64_t word)
{
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long index;
    _BitScanForward64(&index, word);
    return (int)index;
#else
    return __builtin_ctzll(word);
#endif
}

#endif
