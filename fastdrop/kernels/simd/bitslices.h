/* This is ARS (see ars.pxi) for a CPU that has vectors but no instruction for AES. It draws many blocks at once. Bit
 * slice n holds bit n of every block, and each block has a lane, so one instruction is a gate of a circuit for all of
 * them. The header of a vocabulary has to come before. */
#ifndef FASTDROP_BITSLICES_H
#define FASTDROP_BITSLICES_H

#include "common.h"

/* BITSLICE_LANES blocks are drawn together. gcc and clang have a notation for vectors. MSVC has names for those of every
 * x86-64, and FASTDROP_PLAIN asks for the names too. Without vectors a bit slice is a word, and tables are as fast. */
#if (defined(__GNUC__) || defined(__clang__)) && !defined(FASTDROP_PLAIN) && \
    (defined(__SSE2__) || defined(__ARM_NEON) || defined(__ALTIVEC__))

enum { BITSLICE_LANES = 128 };
typedef uint64_t bitslice __attribute__((vector_size(16)));
#define FILL(word) ((bitslice){word, word})

#elif defined(__SSE2__) || defined(_M_X64)

#include <emmintrin.h>
enum { BITSLICE_LANES = 128 };
typedef __m128i bitslice;
#define FILL(word) _mm_set1_epi64x((long long)(word))
#define XOR(a, b) _mm_xor_si128(a, b)
#define AND(a, b) _mm_and_si128(a, b)
#define LEFT(a, bits) _mm_slli_epi64(a, bits)
#define RIGHT(a, bits) _mm_srli_epi64(a, bits)

#else

enum { BITSLICE_LANES = 64 };
typedef uint64_t bitslice;
#define FILL(word) (word)

#endif

#if !defined(XOR)
#define XOR(a, b) ((a) ^ (b))
#define AND(a, b) ((a) & (b))
#define LEFT(a, bits) ((a) << (bits))
#define RIGHT(a, bits) ((a) >> (bits))
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define BITSLICES static __declspec(noinline)
#else
#define BITSLICES static __attribute__((noinline, unused))
#endif

enum { BITSLICE_ROUNDS = 7, BITSLICES_PER_WORD = 64, BITSLICES_PER_BLOCK = 128 };

/* A vocabulary with an instruction for AES has groups of several blocks. */
enum { BITSLICED = GROUP_SIZE == 1 && BITSLICE_LANES > 64 };

/* This is what all blocks of a draw have in common: the low words of their counters but for the lowest 16 bits, and the
 * keys of the rounds as bit slices. Those of rounds 1 and 2 include what follows from the common bits alone. */
typedef struct {
    uint64_t base;
    bitslice key[BITSLICE_ROUNDS + 1][BITSLICES_PER_BLOCK];
} bitslices_key;

/* Put SubBytes of a byte to `s`, without its constant 0x63, which the keys include. The circuit is by J. Boyar and
 * R. Peralta, "A new combinational logic minimization technique with applications to cryptology", SEA 2010: 32 ANDs and
 * 83 XORs. The names are theirs, and x0 and s0 are the most significant bits. */
VOCABULARY void bitslices_sub(const bitslice *x, bitslice *s)
{
    const bitslice x0 = x[7], x1 = x[6], x2 = x[5], x3 = x[4], x4 = x[3], x5 = x[2], x6 = x[1], x7 = x[0];
    /* the linear layer at the top */
    const bitslice y14 = XOR(x3, x5), y13 = XOR(x0, x6), y9 = XOR(x0, x3), y8 = XOR(x0, x5);
    const bitslice t0 = XOR(x1, x2), y1 = XOR(t0, x7), y4 = XOR(y1, x3), y12 = XOR(y13, y14);
    const bitslice y2 = XOR(y1, x0), y5 = XOR(y1, x6), y3 = XOR(y5, y8), t1 = XOR(x4, y12);
    const bitslice y15 = XOR(t1, x5), y20 = XOR(t1, x1), y6 = XOR(y15, x7), y10 = XOR(y15, t0);
    const bitslice y11 = XOR(y20, y9), y7 = XOR(x7, y11), y17 = XOR(y10, y11), y19 = XOR(y10, y8);
    const bitslice y16 = XOR(t0, y11), y21 = XOR(y13, y16), y18 = XOR(x0, y16);
    /* the inverse in the field of 256 elements */
    const bitslice t2 = AND(y12, y15), t3 = AND(y3, y6), t4 = XOR(t3, t2), t5 = AND(y4, x7), t6 = XOR(t5, t2);
    const bitslice t7 = AND(y13, y16), t8 = AND(y5, y1), t9 = XOR(t8, t7), t10 = AND(y2, y7), t11 = XOR(t10, t7);
    const bitslice t12 = AND(y9, y11), t13 = AND(y14, y17), t14 = XOR(t13, t12), t15 = AND(y8, y10);
    const bitslice t16 = XOR(t15, t12), t17 = XOR(t4, t14), t18 = XOR(t6, t16), t19 = XOR(t9, t14);
    const bitslice t20 = XOR(t11, t16), t21 = XOR(t17, y20), t22 = XOR(t18, y19), t23 = XOR(t19, y21);
    const bitslice t24 = XOR(t20, y18), t25 = XOR(t21, t22), t26 = AND(t21, t23), t27 = XOR(t24, t26);
    const bitslice t28 = AND(t25, t27), t29 = XOR(t28, t22), t30 = XOR(t23, t24), t31 = XOR(t22, t26);
    const bitslice t32 = AND(t31, t30), t33 = XOR(t32, t24), t34 = XOR(t23, t33), t35 = XOR(t27, t33);
    const bitslice t36 = AND(t24, t35), t37 = XOR(t36, t34), t38 = XOR(t27, t36), t39 = AND(t29, t38);
    const bitslice t40 = XOR(t25, t39), t41 = XOR(t40, t37), t42 = XOR(t29, t33), t43 = XOR(t29, t40);
    const bitslice t44 = XOR(t33, t37), t45 = XOR(t42, t41);
    const bitslice z0 = AND(t44, y15), z1 = AND(t37, y6), z2 = AND(t33, x7), z3 = AND(t43, y16), z4 = AND(t40, y1);
    const bitslice z5 = AND(t29, y7), z6 = AND(t42, y11), z7 = AND(t45, y17), z8 = AND(t41, y10), z9 = AND(t44, y12);
    const bitslice z10 = AND(t37, y3), z11 = AND(t33, y4), z12 = AND(t43, y13), z13 = AND(t40, y5), z14 = AND(t29, y2);
    const bitslice z15 = AND(t42, y9), z16 = AND(t45, y14), z17 = AND(t41, y8);
    /* the linear layer at the bottom */
    const bitslice t46 = XOR(z15, z16), t47 = XOR(z10, z11), t48 = XOR(z5, z13), t49 = XOR(z9, z10);
    const bitslice t50 = XOR(z2, z12), t51 = XOR(z2, z5), t52 = XOR(z7, z8), t53 = XOR(z0, z3), t54 = XOR(z6, z7);
    const bitslice t55 = XOR(z16, z17), t56 = XOR(z12, t48), t57 = XOR(t50, t53), t58 = XOR(z4, t46);
    const bitslice t59 = XOR(z3, t54), t60 = XOR(t46, t57), t61 = XOR(z14, t57), t62 = XOR(t52, t58);
    const bitslice t63 = XOR(t49, t58), t64 = XOR(z4, t59), t65 = XOR(t61, t62), t66 = XOR(z1, t63);
    const bitslice t67 = XOR(t64, t65), s3 = XOR(t53, t66);
    s[7] = XOR(t59, t63);
    s[6] = XOR(t64, s3);
    s[5] = XOR(t55, t67);
    s[4] = s3;
    s[3] = XOR(t51, t66);
    s[2] = XOR(t47, t65);
    s[1] = XOR(t56, t62);
    s[0] = XOR(t48, t60);
}

/* Put bit `i` of MixColumns of a column, plus its key, to `to`. Row r becomes 2 * (r + r1) + r1 + r2 + r3, where r1, r2
 * and r3 are the rows after it. So `sum` gets the sums of neighbours, and `carried` has those of the bit before. The
 * double of a byte has its top bit in the bits of 0x1b. */
VOCABULARY void bitslices_mix(bitslice row[4][8], int i, const bitslice *top, bitslice *carried, const bitslice *key,
                              bitslice *to)
{
    bitslice sum[4];
    for (int r = 0; r < 4; r++) sum[r] = XOR(row[r][i], row[(r + 1) & 3][i]);
    for (int r = 0; r < 4; r++) {
        bitslice mixed = XOR(XOR(row[(r + 1) & 3][i], sum[(r + 2) & 3]), XOR(carried[r], key[8 * r + i]));
        if (i && 0x1b >> i & 1) mixed = XOR(mixed, top[r]);
        to[8 * r + i] = mixed;
    }
    for (int r = 0; r < 4; r++) carried[r] = sum[r];
}

/* Put a column of the state after a round to `to`. By ShiftRows, its row r comes from the column r places after it.
 * Bytes that are not in the set `bytes` count as zero after SubBytes. */
BITSLICES void bitslices_column(const bitslice *from, bitslice *to, const bitslice *key, int column, int bytes)
{
    bitslice row[4][8], top[4], carried[4];
    for (int r = 0; r < 4; r++) {
        int byte = 4 * ((column + r) & 3) + r;
        if (bytes >> byte & 1) bitslices_sub(from + 8 * byte, row[r]);
        else memset(row[r], 0, sizeof row[r]);
    }
    for (int r = 0; r < 4; r++) carried[r] = top[r] = XOR(row[r][7], row[(r + 1) & 3][7]);
    to += 32 * column, key += 32 * column;
    bitslices_mix(row, 0, top, carried, key, to);
    bitslices_mix(row, 1, top, carried, key, to);
    bitslices_mix(row, 2, top, carried, key, to);
    bitslices_mix(row, 3, top, carried, key, to);
    bitslices_mix(row, 4, top, carried, key, to);
    bitslices_mix(row, 5, top, carried, key, to);
    bitslices_mix(row, 6, top, carried, key, to);
    bitslices_mix(row, 7, top, carried, key, to);
}

/* Of the counters, bytes 0 and 1 differ. In round 1 they reach columns 0 and 3 of the state, which are bytes 0 to 3 and
 * 12 to 15. In round 2 these reach every column. */
enum { VARIED_1 = 0x0003, VARIED_2 = 0xF00F, EVERY_BYTE = 0xFFFF };

BITSLICES void bitslices_round(const bitslice *from, bitslice *to, const bitslice *key, int bytes)
{
    for (int column = 0; column < 4; column++) bitslices_column(from, to, key, column, bytes);
}

BITSLICES void bitslices_last_round(const bitslice *from, bitslice *to, const bitslice *key)
{
    for (int byte = 0; byte < 16; byte++) {
        bitslice bits[8];
        bitslices_sub(from + 8 * ((byte + 4 * (byte & 3)) & 15), bits);
        for (int i = 0; i < 8; i++) to[8 * byte + i] = XOR(bits[i], key[8 * byte + i]);
    }
}

VOCABULARY void bitslices_exchange(bitslice *a, bitslice *b, int bits, uint64_t low)
{
    bitslice different = AND(XOR(RIGHT(*a, bits), *b), FILL(low));
    *b = XOR(*b, different);
    *a = XOR(*a, LEFT(different, bits));
}

/* Exchange bits of eight bit slices that are `step` apart, in three steps of 4 * unit, 2 * unit and unit bits. */
VOCABULARY void bitslices_turn(bitslice *s, int step, int unit, uint64_t low4, uint64_t low2, uint64_t low1)
{
    bitslice x[8];
    for (int i = 0; i < 8; i++) x[i] = s[i * step];
    for (int i = 0; i < 4; i++) bitslices_exchange(&x[i], &x[i + 4], 4 * unit, low4);
    for (int i = 0; i < 4; i++) bitslices_exchange(&x[i + (i & 2)], &x[i + (i & 2) + 2], 2 * unit, low2);
    for (int i = 0; i < 8; i += 2) bitslices_exchange(&x[i], &x[i + 1], unit, low1);
    for (int i = 0; i < 8; i++) s[i * step] = x[i];
}

/* Turn a word of each lane into bit slices, or such bit slices into words: both transpose a matrix. */
BITSLICES void bitslices_transpose(bitslice *s)
{
    for (int i = 0; i < 8; i++)
        bitslices_turn(s + i, 8, 8, 0x00000000FFFFFFFF, 0x0000FFFF0000FFFF, 0x00FF00FF00FF00FF);
    for (int i = 0; i < 8; i++)
        bitslices_turn(s + 8 * i, 1, 1, 0x0F0F0F0F0F0F0F0F, 0x3333333333333333, 0x5555555555555555);
}

/* Turn a word below 2**16 of each lane into 16 bit slices. */
VOCABULARY void bitslices_of_low_bits(const uint64_t *words, bitslice *s)
{
    bitslice x[BITSLICES_PER_WORD];
    memcpy(x, words, sizeof x);
    for (int i = 0; i < 16; i++)
        s[i] = XOR(XOR(x[i], LEFT(x[i + 16], 16)), XOR(LEFT(x[i + 32], 32), LEFT(x[i + 48], 48)));
    for (int i = 0; i < 2; i++)
        bitslices_turn(s + i, 2, 2, 0x00FF00FF00FF00FF, 0x0F0F0F0F0F0F0F0F, 0x3333333333333333);
    for (int i = 0; i < 16; i += 2) bitslices_exchange(&s[i], &s[i + 1], 1, 0x5555555555555555);
}

VOCABULARY void bitslices_fill(uint64_t word, bitslice *s)
{
    for (int i = 0; i < BITSLICES_PER_WORD; i++) s[i] = FILL(0 - (word >> i & 1));
}

/* Prepare draws with the keys of rounds 0, ..., 7. The low words of the counters will be `base` but for the lowest 16
 * bits. The high words are these, one per lane. */
BITSLICES void bitslices_start(bitslices_key *draw, const uint64_t *key_low, const uint64_t *key_high, uint64_t base,
                               const uint64_t *high)
{
    bitslice state[BITSLICES_PER_BLOCK];
    uint64_t constant = 0;
    draw->base = base;
    for (int r = 0; r <= BITSLICE_ROUNDS; r++) {
        bitslices_fill(key_low[r] ^ constant, draw->key[r]);
        bitslices_fill(key_high[r] ^ constant, draw->key[r] + BITSLICES_PER_WORD);
        constant = 0x6363636363636363;
    }
    bitslices_fill(base, state);
    memcpy(state + BITSLICES_PER_WORD, high, sizeof state / 2);
    bitslices_transpose(state + BITSLICES_PER_WORD);
    for (int i = 0; i < BITSLICES_PER_BLOCK; i++) state[i] = XOR(state[i], draw->key[0][i]);
    bitslices_round(state, draw->key[1], draw->key[1], EVERY_BYTE & ~VARIED_1);
    bitslices_round(draw->key[1], draw->key[2], draw->key[2], EVERY_BYTE & ~VARIED_2);
}

/* Set two words per block to the bits of blocks whose counters have these lowest 16 bits. */
BITSLICES void bitslices_draw(const bitslices_key *draw, const uint64_t *low, uint64_t *words)
{
    bitslice a[BITSLICES_PER_BLOCK], b[BITSLICES_PER_BLOCK];
    bitslices_of_low_bits(low, a);
    for (int i = 0; i < 16; i++) a[i] = XOR(a[i], draw->key[0][i]);
    bitslices_column(a, b, draw->key[1], 0, VARIED_1);
    bitslices_column(a, b, draw->key[1], 3, VARIED_1);
    bitslices_round(b, a, draw->key[2], VARIED_2);
    bitslices_round(a, b, draw->key[3], EVERY_BYTE);
    bitslices_round(b, a, draw->key[4], EVERY_BYTE);
    bitslices_round(a, b, draw->key[5], EVERY_BYTE);
    bitslices_round(b, a, draw->key[6], EVERY_BYTE);
    bitslices_last_round(a, b, draw->key[7]);
    bitslices_transpose(b);
    bitslices_transpose(b + BITSLICES_PER_WORD);
    for (int n = 0; n < BITSLICE_LANES; n++) {
        memcpy(words + 2 * n, (const uint64_t *)b + n, 8);
        memcpy(words + 2 * n + 1, (const uint64_t *)(b + BITSLICES_PER_WORD) + n, 8);
    }
}

#undef XOR
#undef AND
#undef LEFT
#undef RIGHT
#undef FILL

#endif
