/* Standard normal numbers from random words, by G. E. P. Box and M. E. Muller, "A note on the
 * generation of random normal deviates", Annals of Mathematical Statistics 29, 1958: a point of the
 * plane with two normal coordinates has a radius sqrt(-2 log u), and any direction.
 *
 * Nothing but additions, products and square roots of float32 in a fixed order, and operations on
 * bits: IEEE 754 rounds each of them in one way only, so every machine has the same normals. The
 * compiler must not fuse a product with a sum (-ffp-contract=off). No branch and no table, so that it
 * makes vectors of the loop over pairs. */
#ifndef FASTDROP_NORMAL_H
#define FASTDROP_NORMAL_H

#include <math.h>

#include "simd/common.h"

enum { NORMAL_PAIRS = 16, NORMAL_GROUP = 2 * NORMAL_PAIRS };

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

/* All ones if the top bit is set. */
VOCABULARY uint32_t spread_top(uint32_t word)
{
    return (uint32_t)((int32_t)word >> 31);
}

/* sqrt(-2 log u) with u = (word + 1/2) / 2**32. With 2**e m = u and sqrt(1/2) <= m < sqrt(2),
 * -2 log u = -2 log(2) e + f p(f) for f = m - 1; the polynomial p is minimax. From a word above
 * 2**31, as a signed one, u - 1 is made, and from it f, without loss. */
VOCABULARY float normal_radius(uint32_t word)
{
    const uint32_t one = 0x3F800000, root_half = 0x3F3504F3;
    uint32_t above_half = spread_top(word);
    float x = ((float)(int32_t)word + 0.5f) * 0x1p-32f; /* u, or u - 1 */
    uint32_t u = as_bits(as_float(one & above_half) + x);
    uint32_t exponent = (u - root_half) & 0xFF800000; /* e in its place */
    uint32_t scale = one - exponent;                  /* 2**-e */
    float f = (as_float(scale & above_half) - 1.0f) + x * as_float(scale);
    float p = -0x1.65f0ep-3f;
    p = p * f + 0x1.2505aep-2f;
    p = p * f + -0x1.317caap-2f;
    p = p * f + 0x1.535c2ap-2f;
    p = p * f + -0x1.98d3ap-2f;
    p = p * f + 0x1.0004a8p-1f;
    p = p * f + -0x1.5556fp-1f;
    p = p * f + 0x1.fffffap-1f;
    p = p * f + -2.0f;
    return sqrtf((float)((int32_t)exponent >> 23) * -0x1.62e43p+0f + f * p);
}

/* Cosine and sine of a direction. The low 30 bits are an angle between -pi/4 and pi/4, as a multiple
 * x of pi/4; the top bits turn the sign of the cosine, and exchange the two. */
VOCABULARY void normal_direction(uint32_t word, float *cosine, float *sine)
{
    float x = (float)(int32_t)(word << 2 | 2) * 0x1p-31f;
    float square = x * x;
    float c = -0x1.4e78bep-12f, s = -0x1.33198ep-15f;
    uint32_t c_bits, s_bits, exchanged;
    c = c * square + 0x1.03b058p-6f;
    c = c * square + -0x1.3bd39cp-2f;
    c = c * square + 1.0f;
    s = s * square + 0x1.4680a4p-9f;
    s = s * square + -0x1.4abc24p-4f;
    s = s * square + 0x1.921fb6p-1f;
    c_bits = as_bits(c) ^ (word & 0x80000000);
    s_bits = as_bits(s * x);
    exchanged = (c_bits ^ s_bits) & spread_top(word << 1);
    *cosine = as_float(c_bits ^ exchanged);
    *sine = as_float(s_bits ^ exchanged);
}

VOCABULARY uint32_t word_at(const uint64_t *random, int n)
{
    uint32_t word;
    memcpy(&word, (const char *)random + 4 * n, sizeof word);
    return word;
}

/* A group of normals, turned into noise: pair n is made of words n and n + 16, of 32 bits, and goes to
 * places n and n + 16. */
VOCABULARY void noise_group(const uint64_t *random, float scale, float *noise)
{
    for (int n = 0; n < NORMAL_PAIRS; n++) {
        float radius = normal_radius(word_at(random, n));
        float cosine, sine;
        normal_direction(word_at(random, n + NORMAL_PAIRS), &cosine, &sine);
        noise[n] = 1.0f + scale * (radius * cosine);
        noise[n + NORMAL_PAIRS] = 1.0f + scale * (radius * sine);
    }
}

#endif
