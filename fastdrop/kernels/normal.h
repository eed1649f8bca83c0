/* Random words become standard normal numbers, by G. E. P. Box and M. E. Muller, "A note on the generation of random
 * normal deviates", Annals of Mathematical Statistics 29, 1958: a point of the plane with two normal coordinates has a
 * radius sqrt(-2 log u), and its direction is uniform.
 *
 * This takes additions, products and square roots of float32 in a fixed order, and operations on bits. IEEE 754 rounds
 * each of them in one way, so every machine has the same normals. The compiler must not fuse a product with a sum
 * (-ffp-contract=off). There is no branch and no table, so a compiler can make vectors of the loop over pairs. */
#ifndef FASTDROP_NORMAL_H
#define FASTDROP_NORMAL_H

#include <math.h>

#include "simd/common.h"

enum { NORMAL_PAIRS = 16, NORMAL_GROUP = 2 * NORMAL_PAIRS, NORMAL_GROUPS = 16 /* that are made together */ };

/* Return all ones if the top bit is set, else zeros. */
VOCABULARY uint32_t spread_top(uint32_t word)
{
    return (uint32_t)((int32_t)word >> 31);
}

/* Set e and f for u = (word + 1/2) / 2**32 = 2**e * m, where sqrt(1/2) <= m < sqrt(2) and f = m - 1.
 *
 * Near u = 1 the number f must be exact. A word above 2**31 is, as a signed one, word - 2**32, which gives u - 1
 * without loss. So x is u or u - 1, and f is -1 + 2**-e * x or (2**-e - 1) + 2**-e * x. */
VOCABULARY void split_uniform(uint32_t word, float *e, float *f)
{
    const uint32_t one = 0x3F800000, root_half = 0x3F3504F3, exponent_field = 0xFF800000;
    const uint32_t above_half = spread_top(word);
    const float x = ((float)(int32_t)word + 0.5f) * 0x1p-32f;
    const uint32_t u = as_bits(as_float(one & above_half) + x);
    const uint32_t e_in_field = (u - root_half) & exponent_field;
    const uint32_t scale = one - e_in_field; /* the bits of 2**-e */
    *e = (float)((int32_t)e_in_field >> 23);
    *f = (as_float(scale & above_half) - 1.0f) + x * as_float(scale);
}

/* The next two functions return p(f) = -2 log(1 + f) / f by a minimax polynomial, for sqrt(1/2) <= 1 + f < sqrt(2). The
 * second goes on from what the first one returns. */
VOCABULARY float log_begun(float f)
{
    float p = -0x1.65f0ep-3f;
    p = p * f + 0x1.2505aep-2f;
    p = p * f + -0x1.317caap-2f;
    p = p * f + 0x1.535c2ap-2f;
    return p;
}

VOCABULARY float log_over_f(float begun, float f)
{
    float p = begun * f + -0x1.98d3ap-2f;
    p = p * f + 0x1.0004a8p-1f;
    p = p * f + -0x1.5556fp-1f;
    p = p * f + 0x1.fffffap-1f;
    p = p * f + -2.0f;
    return p;
}

/* Return sqrt(-2 log u), where log u is log(2) * e + log(1 + f). */
VOCABULARY float radius_of(float e, float f, float log_over_f)
{
    return sqrtf(e * -0x1.62e43p+0f + f * log_over_f);
}

/* Return cos(x * pi/4) by a polynomial, for -1 < x < 1, of which `square` is the square. */
VOCABULARY float cosine_of(float square)
{
    float c = -0x1.4e78bep-12f;
    c = c * square + 0x1.03b058p-6f;
    c = c * square + -0x1.3bd39cp-2f;
    c = c * square + 1.0f;
    return c;
}

/* Return sin(x * pi/4) / x in the same way. */
VOCABULARY float sine_over_x(float square)
{
    float s = -0x1.33198ep-15f;
    s = s * square + 0x1.4680a4p-9f;
    s = s * square + -0x1.4abc24p-4f;
    s = s * square + 0x1.921fb6p-1f;
    return s;
}

/* Set the cosine and the sine of a direction. The low 30 bits of the word are an angle of x * pi/4 with -1 < x < 1.
 * The top bit says whether the cosine is negative, and the next one whether the two are exchanged. */
VOCABULARY void normal_direction(uint32_t word, float *cosine, float *sine)
{
    const float x = (float)(int32_t)(word << 2 | 2) * 0x1p-31f, square = x * x;
    const uint32_t c = as_bits(cosine_of(square)) ^ (word & 0x80000000);
    const uint32_t s = as_bits(sine_over_x(square) * x);
    const uint32_t exchanged = (c ^ s) & spread_top(word << 1);
    *cosine = as_float(c ^ exchanged);
    *sine = as_float(s ^ exchanged);
}

VOCABULARY uint32_t word_at(const uint64_t *random, int n)
{
    uint32_t word;
    memcpy(&word, (const char *)random + 4 * n, sizeof word);
    return word;
}

#ifdef __clang__ /* It would unroll a loop over 16 pairs before it looks for vectors in it. */
#define ROLLED _Pragma("clang loop unroll(disable)")
#else
#define ROLLED
#endif
#define EACH_PAIR for (ptrdiff_t g = 0; g < groups; g++) ROLLED for (int n = 0; n < NORMAL_PAIRS; n++)

/* Make the noise of at most NORMAL_GROUPS groups. Words n and n + 16 of a group, of 32 bits, become its elements n and
 * n + 16.
 *
 * Each of these loops does a part of the work for all pairs. A logarithm waits for itself at each step, and a processor
 * does not look so far ahead that it would find another pair while a whole one lasts. */
VOCABULARY void noise_groups(const uint64_t *random, ptrdiff_t groups, float scale, float *noise)
{
    typedef float pairs[NORMAL_GROUPS][NORMAL_PAIRS];
    pairs e, f, log, radius, cosine, sine;
    EACH_PAIR split_uniform(word_at(random + NORMAL_GROUP / 2 * g, n), &e[g][n], &f[g][n]);
    EACH_PAIR log[g][n] = log_begun(f[g][n]);
    EACH_PAIR normal_direction(word_at(random + NORMAL_GROUP / 2 * g, n + NORMAL_PAIRS), &cosine[g][n], &sine[g][n]);
    EACH_PAIR radius[g][n] = radius_of(e[g][n], f[g][n], log_over_f(log[g][n], f[g][n]));
    EACH_PAIR noise[NORMAL_GROUP * g + n] = 1.0f + scale * (radius[g][n] * cosine[g][n]);
    EACH_PAIR noise[NORMAL_GROUP * g + NORMAL_PAIRS + n] = 1.0f + scale * (radius[g][n] * sine[g][n]);
}

#undef EACH_PAIR
#undef ROLLED

#endif
