/* This has what every vocabulary is written with. */
#ifndef FASTDROP_COMMON_H
#define FASTDROP_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#pragma fp_contract(off) /* Other compilers get -ffp-contract=off. */
#endif

#include "../sweep.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define VOCABULARY static __forceinline
#else
#define VOCABULARY static inline __attribute__((always_inline, unused))
#endif

/* These are the packed bits of a chunk, with 8 words of room before them and a group's after them. Vectors of them must
 * not straddle cache lines: a smaller read that follows would wait until both halves have reached the cache. */
enum { CHUNK_BLOCKS = 32, CHUNK_WORDS = 64, ROOM_WORDS = CHUNK_WORDS + 24 };

typedef struct {
#if defined(_MSC_VER) && !defined(__clang__)
    __declspec(align(64)) uint64_t word[ROOM_WORDS];
#else
    uint64_t word[ROOM_WORDS] __attribute__((aligned(64)));
#endif
} chunk_words;

/* A NaN becomes this bfloat16 with the NaN's sign, as in ml_dtypes. Both stand where a float32 has them. */
#define BFLOAT16_NAN 0x7FC00000
#define BFLOAT16_SIGN ((int)0x80000000u)

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

VOCABULARY void prefetch(const char *from)
{
#if defined(_MSC_VER) && !defined(__clang__)
    (void)from;
#else
    __builtin_prefetch(from, 0, 3);
#endif
}

VOCABULARY float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

VOCABULARY uint32_t as_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#endif
