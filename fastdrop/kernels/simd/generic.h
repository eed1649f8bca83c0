/* This is the vocabulary in portable C. AES uses tables, which is no risk because no secret is at stake. Where there are
 * vectors, bitslices.h draws all but a few blocks. Elements are in vectors of four words, for which the baseline of most
 * machines has instructions. */
#ifndef FASTDROP_SIMD_H
#define FASTDROP_SIMD_H

#include "common.h"

/* A group is one block, because a smaller group stops drawing sooner and costs no more without vectors. */
typedef struct { uint64_t word[2]; } reg; /* There are no vectors for AES, so this is 1 block. */

enum { REG_BLOCKS = 1, REGS = 1, FIRST_PLANES = 8, CHAINED = 0 };

/* This is the S-box of FIPS 197, figure 7. */
/* clang-format off */
#define SBOX(X) \
    X(0x63) X(0x7c) X(0x77) X(0x7b) X(0xf2) X(0x6b) X(0x6f) X(0xc5) \
    X(0x30) X(0x01) X(0x67) X(0x2b) X(0xfe) X(0xd7) X(0xab) X(0x76) \
    X(0xca) X(0x82) X(0xc9) X(0x7d) X(0xfa) X(0x59) X(0x47) X(0xf0) \
    X(0xad) X(0xd4) X(0xa2) X(0xaf) X(0x9c) X(0xa4) X(0x72) X(0xc0) \
    X(0xb7) X(0xfd) X(0x93) X(0x26) X(0x36) X(0x3f) X(0xf7) X(0xcc) \
    X(0x34) X(0xa5) X(0xe5) X(0xf1) X(0x71) X(0xd8) X(0x31) X(0x15) \
    X(0x04) X(0xc7) X(0x23) X(0xc3) X(0x18) X(0x96) X(0x05) X(0x9a) \
    X(0x07) X(0x12) X(0x80) X(0xe2) X(0xeb) X(0x27) X(0xb2) X(0x75) \
    X(0x09) X(0x83) X(0x2c) X(0x1a) X(0x1b) X(0x6e) X(0x5a) X(0xa0) \
    X(0x52) X(0x3b) X(0xd6) X(0xb3) X(0x29) X(0xe3) X(0x2f) X(0x84) \
    X(0x53) X(0xd1) X(0x00) X(0xed) X(0x20) X(0xfc) X(0xb1) X(0x5b) \
    X(0x6a) X(0xcb) X(0xbe) X(0x39) X(0x4a) X(0x4c) X(0x58) X(0xcf) \
    X(0xd0) X(0xef) X(0xaa) X(0xfb) X(0x43) X(0x4d) X(0x33) X(0x85) \
    X(0x45) X(0xf9) X(0x02) X(0x7f) X(0x50) X(0x3c) X(0x9f) X(0xa8) \
    X(0x51) X(0xa3) X(0x40) X(0x8f) X(0x92) X(0x9d) X(0x38) X(0xf5) \
    X(0xbc) X(0xb6) X(0xda) X(0x21) X(0x10) X(0xff) X(0xf3) X(0xd2) \
    X(0xcd) X(0x0c) X(0x13) X(0xec) X(0x5f) X(0x97) X(0x44) X(0x17) \
    X(0xc4) X(0xa7) X(0x7e) X(0x3d) X(0x64) X(0x5d) X(0x19) X(0x73) \
    X(0x60) X(0x81) X(0x4f) X(0xdc) X(0x22) X(0x2a) X(0x90) X(0x88) \
    X(0x46) X(0xee) X(0xb8) X(0x14) X(0xde) X(0x5e) X(0x0b) X(0xdb) \
    X(0xe0) X(0x32) X(0x3a) X(0x0a) X(0x49) X(0x06) X(0x24) X(0x5c) \
    X(0xc2) X(0xd3) X(0xac) X(0x62) X(0x91) X(0x95) X(0xe4) X(0x79) \
    X(0xe7) X(0xc8) X(0x37) X(0x6d) X(0x8d) X(0xd5) X(0x4e) X(0xa9) \
    X(0x6c) X(0x56) X(0xf4) X(0xea) X(0x65) X(0x7a) X(0xae) X(0x08) \
    X(0xba) X(0x78) X(0x25) X(0x2e) X(0x1c) X(0xa6) X(0xb4) X(0xc6) \
    X(0xe8) X(0xdd) X(0x74) X(0x1f) X(0x4b) X(0xbd) X(0x8b) X(0x8a) \
    X(0x70) X(0x3e) X(0xb5) X(0x66) X(0x48) X(0x03) X(0xf6) X(0x0e) \
    X(0x61) X(0x35) X(0x57) X(0xb9) X(0x86) X(0xc1) X(0x1d) X(0x9e) \
    X(0xe1) X(0xf8) X(0x98) X(0x11) X(0x69) X(0xd9) X(0x8e) X(0x94) \
    X(0x9b) X(0x1e) X(0x87) X(0xe9) X(0xce) X(0x55) X(0x28) X(0xdf) \
    X(0x8c) X(0xa1) X(0x89) X(0x0d) X(0xbf) X(0xe6) X(0x42) X(0x68) \
    X(0x41) X(0x99) X(0x2d) X(0x0f) X(0xb0) X(0x54) X(0xbb) X(0x16)
/* clang-format on */

/* aes_table[r] maps a byte in row r of its column to what SubBytes and MixColumns make of it. For row 0 that is
 * (2, 1, 1, 3) times s, least significant first, and for the other rows a rotation of it. The tables are 1 KiB each, so
 * they stay in a first-level cache. */
#define XTIME(s) ((uint32_t)(((s) << 1) ^ (((s) >> 7) * 0x11b)))
#define MIXED(s) (XTIME(s) | ((uint32_t)(s) << 8) | ((uint32_t)(s) << 16) | ((XTIME(s) ^ (s)) << 24))
#define ROTATED(word, bits) (((word) << (bits)) | ((word) >> (32 - (bits))))
#define ROW_0(s) MIXED(s),
#define ROW_1(s) ROTATED(MIXED(s), 8),
#define ROW_2(s) ROTATED(MIXED(s), 16),
#define ROW_3(s) ROTATED(MIXED(s), 24),
static const uint32_t aes_table[4][256] = {{SBOX(ROW_0)}, {SBOX(ROW_1)}, {SBOX(ROW_2)}, {SBOX(ROW_3)}};

VOCABULARY reg reg_set(uint64_t low, uint64_t high)
{
    reg a = {{low, high}};
    return a;
}

VOCABULARY reg reg_count(uint64_t first, int more)
{
    return reg_set(first + (uint64_t)more, 0);
}

VOCABULARY reg reg_xor(reg a, reg b)
{
    return reg_set(a.word[0] ^ b.word[0], a.word[1] ^ b.word[1]);
}

VOCABULARY reg reg_and(reg a, reg b)
{
    return reg_set(a.word[0] & b.word[0], a.word[1] & b.word[1]);
}

VOCABULARY reg reg_andnot(reg a, reg b)
{
    return reg_set(a.word[0] & ~b.word[0], a.word[1] & ~b.word[1]);
}

VOCABULARY reg reg_below(reg below, reg tied, reg bits)
{
    return reg_set(below.word[0] | (tied.word[0] & ~bits.word[0]),
                   below.word[1] | (tied.word[1] & ~bits.word[1]));
}

/* Return column 0 after a round, without its key. By ShiftRows, row r of a column comes from the column r places after
 * it, so b, c and d are the columns that follow. */
VOCABULARY uint32_t aes_column(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return aes_table[0][a & 255] ^ aes_table[1][(b >> 8) & 255] ^ aes_table[2][(c >> 16) & 255] ^
           aes_table[3][d >> 24];
}

#define BYTE(s) s,
static const uint8_t aes_box[256] = {SBOX(BYTE)};

VOCABULARY uint32_t aes_byte(uint32_t a)
{
    return aes_box[a & 255];
}

VOCABULARY uint32_t aes_column_last(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return aes_byte(a) | aes_byte(b >> 8) << 8 | aes_byte(c >> 16) << 16 | aes_byte(d >> 24) << 24;
}

typedef struct { uint32_t column[4]; } aes_state;

VOCABULARY aes_state state_of(reg block)
{
    aes_state s = {{(uint32_t)block.word[0], (uint32_t)(block.word[0] >> 32),
                    (uint32_t)block.word[1], (uint32_t)(block.word[1] >> 32)}};
    return s;
}

VOCABULARY reg block_of(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return reg_set(a | (uint64_t)b << 32, c | (uint64_t)d << 32);
}

VOCABULARY reg reg_aes(reg state, reg key)
{
    aes_state s = state_of(state);
    uint32_t a = s.column[0], b = s.column[1], c = s.column[2], d = s.column[3];
    return reg_xor(key, block_of(aes_column(a, b, c, d), aes_column(b, c, d, a),
                                 aes_column(c, d, a, b), aes_column(d, a, b, c)));
}

VOCABULARY reg reg_aes_last(reg state, reg key)
{
    aes_state s = state_of(state);
    uint32_t a = s.column[0], b = s.column[1], c = s.column[2], d = s.column[3];
    return reg_xor(key, block_of(aes_column_last(a, b, c, d), aes_column_last(b, c, d, a),
                                 aes_column_last(c, d, a, b), aes_column_last(d, a, b, c)));
}

VOCABULARY uint64_t reg_which(reg a)
{
    return (a.word[0] != 0) | (a.word[1] != 0) << 1;
}

VOCABULARY reg reg_load(const uint64_t *words)
{
    reg a;
    a.word[0] = words[0];
    a.word[1] = words[1];
    return a;
}

VOCABULARY void reg_store(uint64_t *words, reg a)
{
    words[0] = a.word[0];
    words[1] = a.word[1];
}

#include "blocks.h"
#include "chains.h"

/* A part is 16 bytes of elements. gcc and clang have a notation for vectors of them, which become instructions of the
 * baseline. Other compilers get loops, which FASTDROP_PLAIN asks for too.
 *
 * Each macro is a statement that changes `a`. Where two parts are compared, every lane becomes all ones or all zeros. */
#if (defined(__GNUC__) || defined(__clang__)) && !defined(FASTDROP_PLAIN)

typedef uint32_t part __attribute__((vector_size(16)));
typedef float floats __attribute__((vector_size(16)));
typedef double doubles __attribute__((vector_size(16)));

#define WORD(a, i) (a)[i]
#define COMPUTE_WORDS(a, op, b) a = (part)(a op b)
#define COMPARE_WORDS COMPUTE_WORDS
#define COMPUTE_LANES(dtype, a, op, b)                                                           \
    do {                                                                                         \
        if (dtype == FLOAT64) a = (part)((doubles)a op (doubles)b);                              \
        else a = (part)((floats)a op (floats)b);                                                 \
    } while (0)
#define COMPARE_LANES COMPUTE_LANES

/* Conversions are written once, for `words`, which are a part here, and a single word where there are no vectors. */
typedef part words;
typedef int32_t signed_words __attribute__((vector_size(16)));
typedef uint16_t halves __attribute__((vector_size(16)));

#define WORDS(parts, i) (parts)[i]
#define EACH_WORDS for (int i = 0; i < 4; i++)
#define ABOVE(a, constant) ((words)((signed_words)(a) > (constant)))
#define FLOAT_SUM(a, constant) ((words)((floats)(a) + (constant)))
#define FLOAT_PRODUCT(a, constant) ((words)((floats)(a) * (constant)))

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (halves){__VA_ARGS__})
#endif

VOCABULARY void halves_load(part *to, const char *from)
{
    const halves zeros = {0};
    for (int i = 0; i < 2; i++) {
        halves a;
        memcpy(&a, from + 16 * i, sizeof a);
        to[2 * i] = (part)SHUFFLE(a, zeros, 0, 8, 1, 9, 2, 10, 3, 11);
        to[2 * i + 1] = (part)SHUFFLE(a, zeros, 4, 12, 5, 13, 6, 14, 7, 15);
    }
}

VOCABULARY void halves_store(char *to, const part *from)
{
    for (int i = 0; i < 2; i++) {
        halves a = SHUFFLE((halves)from[2 * i], (halves)from[2 * i + 1], 0, 2, 4, 6, 8, 10, 12, 14);
        memcpy(to + 16 * i, &a, sizeof a);
    }
}

#else

typedef union {
    uint32_t word[4];
    uint64_t q[2];
    float f[4];
    double d[2];
} part;

#define EACH_WORD for (int i = 0; i < 4; i++)
#define EACH_DOUBLE for (int i = 0; i < 2; i++)
#define WORD(a, i) (a).word[i]
#define COMPUTE_WORDS(a, op, b) EACH_WORD a.word[i] = a.word[i] op b.word[i]
#define COMPARE_WORDS(a, op, b) EACH_WORD a.word[i] = a.word[i] op b.word[i] ? UINT32_MAX : 0
#define COMPUTE_LANES(dtype, a, op, b)                                                           \
    do {                                                                                         \
        if (dtype == FLOAT64) EACH_DOUBLE a.d[i] = a.d[i] op b.d[i];                             \
        else EACH_WORD a.f[i] = a.f[i] op b.f[i];                                                \
    } while (0)
#define COMPARE_LANES(dtype, a, op, b)                                                           \
    do {                                                                                         \
        if (dtype == FLOAT64) EACH_DOUBLE a.q[i] = a.d[i] op b.d[i] ? UINT64_MAX : 0;            \
        else EACH_WORD a.word[i] = a.f[i] op b.f[i] ? UINT32_MAX : 0;                            \
    } while (0)

typedef uint32_t words;

#define WORDS(parts, i) (parts)[i / 4].word[i % 4]
#define EACH_WORDS for (int i = 0; i < 16; i++)
#define ABOVE(a, constant) ((int32_t)(a) > (constant) ? UINT32_MAX : 0)
#define FLOAT_SUM(a, constant) as_bits(as_float(a) + (constant))
#define FLOAT_PRODUCT(a, constant) as_bits(as_float(a) * (constant))

VOCABULARY void halves_load(part *to, const char *from)
{
    uint16_t half[16];
    memcpy(half, from, sizeof half);
    EACH_WORDS WORDS(to, i) = half[i];
}

VOCABULARY void halves_store(char *to, const part *from)
{
    uint16_t half[16];
    EACH_WORDS half[i] = (uint16_t)WORDS(from, i);
    memcpy(to, half, sizeof half);
}

#endif

#define CHOOSE(condition, a, b) ((((a) ^ (b)) & (condition)) ^ (b))

VOCABULARY part part_and(part a, part b) { COMPUTE_WORDS(a, &, b); return a; }
VOCABULARY part part_or(part a, part b) { COMPUTE_WORDS(a, |, b); return a; }
VOCABULARY part part_xor(part a, part b) { COMPUTE_WORDS(a, ^, b); return a; }
VOCABULARY part part_andnot(part a, part b) { COMPUTE_WORDS(a, &~, b); return a; }
VOCABULARY part part_same(part a, part b) { COMPARE_WORDS(a, ==, b); return a; }
VOCABULARY part part_product(int dtype, part a, part b) { COMPUTE_LANES(dtype, a, *, b); return a; }
VOCABULARY part part_sum(int dtype, part a, part b) { COMPUTE_LANES(dtype, a, +, b); return a; }
VOCABULARY part part_unequal(int dtype, part a, part b) { COMPARE_LANES(dtype, a, !=, b); return a; }
VOCABULARY part part_at_most(int dtype, part a, part b) { COMPARE_LANES(dtype, a, <=, b); return a; }

VOCABULARY part part_of(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    part whole;
    uint32_t words[4] = {a, b, c, d};
    memcpy(&whole, words, sizeof whole);
    return whole;
}

typedef struct { part part[4]; } lanes;

typedef lanes lanes_mask; /* Each lane is all ones or all zeros. */

#define EACH_PART for (int i = 0; i < 4; i++)

/* A product with 2**112 changes the exponent's bias. It is exact, also for subnormal numbers. */
VOCABULARY words float16_to_float(words half)
{
    const words shifted = (half & 0x7FFF) << 13, infinite = ABOVE(shifted, 0x7BFF << 13) & 0x7F800000;
    return FLOAT_PRODUCT(shifted, 0x1p112f) | infinite | (half & 0x8000) << 16;
}

VOCABULARY words float_to_float16(words a)
{
    const words sign = a & 0x80000000, size = a ^ sign, kept = size >> 13;
    const words normal = (size - (112 << 23) + 0xFFF + (kept & 1)) >> 13;
    /* The last bit of 0.5 is the last bit of a subnormal float16, so a sum with it is rounded where the result ends. */
    const words subnormal = FLOAT_SUM(size, 0.5f) - 0x3F000000;
    const words special = (ABOVE(size, 0x7F800000) & (kept | 0x200) & 0x3FF) | 0x7C00;
    const words finite = CHOOSE(ABOVE(size, 0x387FFFFF), normal, subnormal); /* from 2**-14 on */
    return sign >> 16 | CHOOSE(ABOVE(size, 0x477FFFFF), special, finite);    /* from 2**16 on */
}

VOCABULARY words bfloat16_to_float(words half)
{
    return half << 16;
}

VOCABULARY words float_to_bfloat16(words a)
{
    const words nearest = a + 0x7FFF + (a >> 16 & 1), nan = (a & (uint32_t)BFLOAT16_SIGN) | BFLOAT16_NAN;
    return CHOOSE(ABOVE(a & 0x7FFFFFFF, 0x7F800000), nan, nearest) >> 16;
}

VOCABULARY lanes lanes_load(int dtype, const char *from)
{
    lanes a;
    if (dtype == FLOAT16) {
        halves_load(a.part, from);
        EACH_WORDS WORDS(a.part, i) = float16_to_float(WORDS(a.part, i));
    } else if (dtype == BFLOAT16) {
        halves_load(a.part, from);
        EACH_WORDS WORDS(a.part, i) = bfloat16_to_float(WORDS(a.part, i));
    } else {
        EACH_PART memcpy(&a.part[i], from + 16 * i, 16);
    }
    return a;
}

VOCABULARY lanes lanes_load_wide(int dtype, const char *from)
{
    lanes a;
    char narrow[32] = {0};
    if (dtype == FLOAT64)
        return lanes_load(dtype, from);
    if (dtype == FLOAT16 || dtype == BFLOAT16) {
        memcpy(narrow, from, 16);
        a = lanes_load(dtype, narrow);
        memcpy(narrow, a.part, sizeof narrow); /* The first eight of 16 lanes are float32 now. */
        from = narrow;
    }
    EACH_PART {
        float two[2];
        memcpy(two, from + 8 * i, sizeof two);
        double wide[2] = {two[0], two[1]};
        memcpy(&a.part[i], wide, 16);
    }
    return a;
}

VOCABULARY void lanes_store(int dtype, char *to, lanes a)
{
    if (dtype == FLOAT16) {
        EACH_WORDS WORDS(a.part, i) = float_to_float16(WORDS(a.part, i));
        halves_store(to, a.part);
    } else if (dtype == BFLOAT16) {
        EACH_WORDS WORDS(a.part, i) = float_to_bfloat16(WORDS(a.part, i));
        halves_store(to, a.part);
    } else {
        EACH_PART memcpy(to + 16 * i, &a.part[i], 16);
    }
}

VOCABULARY void lanes_stream(int dtype, char *to, lanes a)
{
    lanes_store(dtype, to, a);
}

VOCABULARY lanes lanes_fill(int dtype, double value)
{
    double wide[2] = {value, value};
    float single[4] = {(float)value, (float)value, (float)value, (float)value};
    lanes a;
    EACH_PART memcpy(&a.part[i], dtype == FLOAT64 ? (void *)wide : (void *)single, 16);
    return a;
}

VOCABULARY lanes lanes_scale(int dtype, lanes_mask m, lanes a, lanes b)
{
    EACH_PART a.part[i] = part_and(part_product(dtype, a.part[i], b.part[i]), m.part[i]);
    return a;
}

VOCABULARY lanes lanes_add(int dtype, lanes a, lanes b)
{
    EACH_PART a.part[i] = part_sum(dtype, a.part[i], b.part[i]);
    return a;
}

VOCABULARY lanes lanes_choose(int dtype, lanes_mask m, lanes a, lanes b)
{
    (void)dtype;
    EACH_PART a.part[i] = part_xor(part_and(part_xor(a.part[i], b.part[i]), m.part[i]), b.part[i]);
    return a;
}

/* Return, for each word of part `i`, the bit that packed bits have for its lane. */
VOCABULARY part own_bits(int dtype, int i)
{
    if (dtype == FLOAT64) return part_of(1u << 2 * i, 1u << 2 * i, 2u << 2 * i, 2u << 2 * i);
    return part_of(1u << 4 * i, 2u << 4 * i, 4u << 4 * i, 8u << 4 * i);
}

VOCABULARY lanes_mask mask_load(int dtype, const unsigned char *bits)
{
    lanes_mask m;
    uint32_t word = bits[0];
    if (dtype != FLOAT64) word |= (uint32_t)bits[1] << 8;
    EACH_PART m.part[i] = part_same(part_and(part_of(word, word, word, word), own_bits(dtype, i)), own_bits(dtype, i));
    return m;
}

VOCABULARY void mask_store(int dtype, unsigned char *bits, lanes_mask m)
{
    part own = part_and(m.part[0], own_bits(dtype, 0));
    for (int i = 1; i < 4; i++) own = part_or(own, part_and(m.part[i], own_bits(dtype, i)));
    uint32_t word = WORD(own, 0) | WORD(own, 1) | WORD(own, 2) | WORD(own, 3);
    bits[0] = (unsigned char)word;
    if (dtype != FLOAT64) bits[1] = (unsigned char)(word >> 8);
}

VOCABULARY lanes_mask mask_positive(int dtype, lanes_mask m, lanes a)
{
    EACH_PART m.part[i] = part_andnot(m.part[i], part_at_most(dtype, a.part[i], part_of(0, 0, 0, 0)));
    return m;
}

VOCABULARY lanes_mask mask_nonzero(int dtype, lanes a)
{
    EACH_PART a.part[i] = part_unequal(dtype, a.part[i], part_of(0, 0, 0, 0));
    return a;
}

VOCABULARY void stream_end(void)
{
}

#undef WORD
#undef COMPUTE_WORDS
#undef COMPARE_WORDS
#undef COMPUTE_LANES
#undef COMPARE_LANES
#undef WORDS
#undef EACH_WORDS
#undef ABOVE
#undef FLOAT_SUM
#undef FLOAT_PRODUCT
#undef CHOOSE
#undef SHUFFLE
#undef EACH_PART

#endif
