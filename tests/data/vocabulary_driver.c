/* This calls every function of a vocabulary on fixed pseudo-random inputs and prints the results. Two vocabularies agree
 * where their texts do. It is compiled with -DVOCABULARY_HEADER='"simd/....h"'.
 *
 * Blocks come eight at a time, in as many groups as that takes. Before that, ARS on this vocabulary answers lines of
 * tests/data/ars_kat_vectors.txt from standard input.
 */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include VOCABULARY_HEADER
#include "simd/bitslices.h"

enum { BLOCKS = 8, WORDS = 2 * BLOCKS, TRIALS = 50, LANES = 16, LANES_BYTES = 64, MOST_LANES = 128 };

#define EACH_GROUP for (int g = 0; g < WORDS; g += 2 * GROUP_SIZE)

/* This is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). */
static uint64_t random_state = 42;

static uint64_t random_word(void)
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static void print_words(const char *name, const uint64_t *words, int count)
{
    printf("%s", name);
    for (int i = 0; i < count; i++) printf(" %016" PRIx64, words[i]);
    printf("\n");
}

/* --- known answers ------------------------------------------------------------------------- */

static void read_words(uint64_t *words)
{
    uint32_t parts[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; i++)
        if (scanf("%" SCNx32, &parts[i]) != 1) parts[i] = 0;
    words[0] = parts[0] | (uint64_t)parts[1] << 32;
    words[1] = parts[2] | (uint64_t)parts[3] << 32;
}

static void next_key(uint64_t *key)
{
    key[0] += 0x9E3779B97F4A7C15u;
    key[1] += 0xBB67AE8584CAA73Bu;
}

static blocks ars(const uint64_t *counter, const uint64_t *key, int rounds)
{
    uint64_t weyl[2] = {key[0], key[1]};
    blocks state = blocks_xor(blocks_set(counter[0], counter[1]), blocks_set(key[0], key[1]));
    for (int r = 1; r <= rounds; r++) {
        next_key(weyl);
        blocks round_key = blocks_set(weyl[0], weyl[1]);
        state = r < rounds ? blocks_aes(state, round_key) : blocks_aes_last(state, round_key);
    }
    return state;
}

static void known_answers(void)
{
    int rounds;
    while (scanf("%d", &rounds) == 1) {
        uint64_t counter[2], key[2], output[2 * GROUP_SIZE];
        read_words(counter);
        read_words(key);
        blocks_store(output, ars(counter, key, rounds));
        int alike = 1;
        for (int i = 2; i < 2 * GROUP_SIZE; i++) alike &= output[i] == output[i % 2];
        printf("ars%s", alike ? "" : " (the blocks of a group differ)");
        for (int i = 0; i < 4; i++) printf(" %08" PRIx32, (uint32_t)(output[i / 2] >> (i % 2 * 32)));
        printf("\n");
    }
}

/* --- blocks -------------------------------------------------------------------------------- */

static uint64_t a[WORDS], b[WORDS], c[WORDS], result[WORDS];

#define PRINT_BLOCKS(name, expression)                     \
    do {                                                   \
        EACH_GROUP blocks_store(result + g, (expression)); \
        print_words(name, result, WORDS);                  \
    } while (0)
#define A blocks_load(a + g)
#define B blocks_load(b + g)
#define C blocks_load(c + g)

/* Return which words are not zero, bit n for word n. */
static uint64_t which(const uint64_t *words)
{
    uint64_t bits = 0;
    EACH_GROUP bits |= blocks_which(blocks_load(words + g)) << g;
    return bits;
}

static void check_which(void)
{
    uint64_t words[WORDS] = {0};
    uint64_t none = which(words), found = 0, lowest = 0;
    for (int bit = 0; bit < 64 * WORDS; bit++) {
        words[bit / 64] = (uint64_t)1 << bit % 64;
        found += which(words) == (uint64_t)1 << bit / 64;
        lowest += lowest_bit(words[bit / 64] | (uint64_t)1 << 63) == bit % 64;
        words[bit / 64] = 0;
    }
    printf("which %" PRIu64 ", of one bit %" PRIu64 ", the lowest %" PRIu64 "\n", none, found, lowest);
}

static void check_blocks(void)
{
    for (int i = 0; i < WORDS; i++) a[i] = random_word(), b[i] = random_word(), c[i] = random_word();
    PRINT_BLOCKS("set", blocks_set(a[0], b[0]));
    PRINT_BLOCKS("count", blocks_count(a[0] + (uint64_t)g / 2));
    PRINT_BLOCKS("count at 2**32", blocks_count(((uint64_t)1 << 32) - 3 + (uint64_t)g / 2));
    PRINT_BLOCKS("count at 2**64", blocks_count((uint64_t)-3 + (uint64_t)g / 2));
    PRINT_BLOCKS("load", A);
    PRINT_BLOCKS("xor", blocks_xor(A, B));
    PRINT_BLOCKS("and", blocks_and(A, B));
    PRINT_BLOCKS("andnot", blocks_andnot(A, B));
    PRINT_BLOCKS("below", blocks_below(A, B, C));
    PRINT_BLOCKS("aes", blocks_aes(A, B));
    PRINT_BLOCKS("aes_last", blocks_aes_last(A, B));
    for (int i = 0; i < WORDS; i++) a[i] = b[i] % 3 ? a[i] : 0;
    printf("which %04" PRIx64 "\n", which(a));
}

/* Set a key at random, and the words of its rounds. */
static void random_key(uint64_t *key, uint64_t *low, uint64_t *high)
{
    uint64_t weyl[2] = {key[0] = random_word(), key[1] = random_word()};
    for (int r = 0; r <= BITSLICE_ROUNDS; r++) {
        low[r] = weyl[0];
        high[r] = weyl[1];
        next_key(weyl);
    }
}

/* Compare the first planes of block `n` with the threshold bit by bit. */
static void compare_plainly(uint64_t n, const uint64_t *key, uint64_t threshold, uint64_t *below, uint64_t *tied)
{
    below[0] = below[1] = 0;
    tied[0] = tied[1] = ~(uint64_t)0;
    for (int p = 0; p < FIRST_PLANES; p++) {
        uint64_t counter[2] = {n, (uint64_t)p}, bits[2 * GROUP_SIZE];
        uint64_t threshold_bits = 0 - (threshold >> (63 - p) & 1);
        blocks_store(bits, ars(counter, key, CHAIN_ROUNDS));
        for (int i = 0; i < 2; i++) {
            below[i] |= tied[i] & threshold_bits & ~bits[i];
            tied[i] &= ~(bits[i] ^ threshold_bits);
        }
    }
}

/* Chains draw what groups of blocks do, also from one register to the next. */
static void check_chains(void)
{
    static chains_key draw;
    enum { DRAWN = 3 };
    uint64_t key[2], low[CHAIN_ROUNDS + 1], high[CHAIN_ROUNDS + 1], difference[FIRST_PLANES];
    uint64_t threshold = random_word() | random_word(), first = random_word(), counters[2 * REG_BLOCKS];
    int alike = 0;
    random_key(key, low, high);
    for (int p = 0; p < FIRST_PLANES; p++) {
        uint64_t state[2 * GROUP_SIZE];
        blocks_store(state, blocks_aes(blocks_xor(blocks_set(0, (uint64_t)p), blocks_set(key[0], key[1])), blocks_set(0, 0)));
        difference[p] = state[1];
    }
    for (int p = FIRST_PLANES - 1; p >= 0; p--) difference[p] ^= difference[0];
    chains_prepare(&draw, low, high, difference, threshold);
    chains state = chains_begin(&draw, chains_first_round(&draw, reg_count(first, 0)));
    for (int n = 0; n < DRAWN; n++) {
        uint64_t below[2 * REG_BLOCKS], tied[2 * REG_BLOCKS], words, expected[2], left[2];
        for (int r = 3; r < CHAIN_ROUNDS; r++) state = chains_round(&draw, state, r);
        reg_store(counters, reg_count(first, REG_BLOCKS * (n + 1)));
        reg following = chains_first_round(&draw, reg_load(counters));
        state = chains_turn(&draw, state, following, below, tied, &words);
        for (int i = 0; i < REG_BLOCKS; i++) {
            compare_plainly(first + (uint64_t)(REG_BLOCKS * n + i), key, threshold, expected, left);
            for (int k = 0; k < 2; k++)
                alike += below[2 * i + k] == expected[k] && tied[2 * i + k] == left[k] &&
                         (words >> (2 * i + k) & 1) == (left[k] != 0);
        }
    }
    printf("chains %s\n", alike == DRAWN * 2 * REG_BLOCKS ? "agree" : "differ");
}

/* Slices draw what groups of blocks do. */
static void check_bitslices(void)
{
    static bitslices_key draw;
    uint64_t key[2], schedule[2][BITSLICE_ROUNDS + 1];
    uint64_t base = random_word() & ~(uint64_t)0xFFFF, low[MOST_LANES], high[MOST_LANES];
    uint64_t words[2 * BITSLICE_LANES], own[2 * GROUP_SIZE];
    int alike = 0;
    random_key(key, schedule[0], schedule[1]);
    for (int n = 0; n < MOST_LANES; n++) low[n] = random_word() & 0xFFFF, high[n] = random_word();
    bitslices_start(&draw, schedule[0], schedule[1], base, high);
    bitslices_draw(&draw, low, words);
    for (int n = 0; n < BITSLICE_LANES; n++) {
        uint64_t counter[2] = {base | low[n], high[n]};
        blocks_store(own, ars(counter, key, BITSLICE_ROUNDS));
        alike += words[2 * n] == own[0] && words[2 * n + 1] == own[1];
    }
    printf("bit slices %s\n", alike == BITSLICE_LANES ? "agree" : "differ");
}

/* --- lanes --------------------------------------------------------------------------------- */

static const float specials_float[] = {
    0.0f, -0.0f, INFINITY, -INFINITY, NAN, -NAN, FLT_MIN, -FLT_MIN, FLT_MIN / 8, -FLT_MIN / 8,
    FLT_TRUE_MIN, -FLT_TRUE_MIN, FLT_MAX, -FLT_MAX, 1.0f, -1.0f,
};
static const double specials_double[] = {
    0.0, -0.0, INFINITY, -INFINITY, NAN, -NAN, DBL_MIN, -DBL_MIN, DBL_MIN / 8, -DBL_MIN / 8,
    DBL_TRUE_MIN, -DBL_TRUE_MIN, DBL_MAX, -DBL_MAX, 1.0, -1.0,
};

/* As float16 or bfloat16 these are NaNs, infinities, subnormal numbers, and ties between two neighbours. */
static const uint16_t specials_half[] = {
    0x0000, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0xFE01, 0x7F80, 0xFF80,
    0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0x7FC0, 0x3C00, 0xBC01,
};

/* Half of the elements are special, and the others have any bit pattern. No product here has two NaN factors, because C
 * leaves open which of them it takes after. */
static void fill_elements(int dtype, char *elements)
{
    int size = dtype == FLOAT64 ? 8 : dtype == FLOAT32 ? 4 : 2;
    for (int i = 0; i < LANES_BYTES / size; i++) {
        uint64_t word = random_word(), choice = random_word() % 32;
        if (choice < 16 && size == 2)
            memcpy(elements + size * i, &specials_half[choice], 2);
        else if (choice < 16)
            memcpy(elements + size * i,
                   dtype == FLOAT32 ? (const void *)&specials_float[choice] : (const void *)&specials_double[choice],
                   (size_t)size);
        else
            memcpy(elements + size * i, &word, (size_t)size);
    }
}

static void print_lanes(int dtype, const char *name, lanes value)
{
    char buffer[LANES_BYTES + 4] = {0};
    uint64_t words[LANES_BYTES / 8];
    lanes_store(dtype, buffer + 4, value);
    memcpy(words, buffer + 4, LANES_BYTES);
    print_words(name, words, LANES_BYTES / 8);
}

static void print_bits(int dtype, const char *name, lanes_mask mask)
{
    unsigned char bits[4] = {0xAA, 0xAA, 0xAA, 0xAA}; /* Those that are not written to must stay. */
    mask_store(dtype, bits + 1, mask);
    __asm__ volatile("" : : "r"(bits) : "memory"); /* The bits come from memory, not from the mask's register. */
    printf("%s %02x%02x%02x%02x\n", name, bits[0], bits[1], bits[2], bits[3]);
}

static void print_streamed(int dtype, lanes value)
{
    uint64_t aligned[LANES_BYTES / 8] __attribute__((aligned(64))) = {0};
    lanes_stream(dtype, (char *)aligned, value);
    prefetch(NULL); /* Any address is allowed. */
    stream_end();
    print_words("stream", aligned, LANES_BYTES / 8);
}

/* `dtype` is a constant at every call, as it is in the kernels. */
VOCABULARY void check_lanes(int dtype)
{
    static const double scales[] = {0.0, 1.0, 1 / 0.9, 2.0, 1 / 3.0, 1e-40, 1e-310, 1e300, INFINITY};
    char elements[LANES_BYTES + 1];
    unsigned char bits[3];
    uint64_t word = random_word();
    memcpy(bits, &word, sizeof bits);
    fill_elements(dtype, elements + 1);
    lanes value = lanes_load(dtype, elements + 1);
    lanes_mask mask = mask_load(dtype, bits + 1);
    print_lanes(dtype, "load", value);
    print_lanes(FLOAT64, "load wide", lanes_load_wide(dtype, elements + 1));
    print_streamed(dtype, value);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        lanes scale = lanes_fill(dtype, scales[i]);
        print_lanes(dtype, "fill", scale);
        print_lanes(dtype, "scale", lanes_scale(dtype, mask, value, scale));
        print_lanes(dtype, "scale positive", lanes_scale(dtype, mask_positive(dtype, mask, value), value, scale));
        print_lanes(dtype, "add", lanes_add(dtype, lanes_scale(dtype, mask_nonzero(dtype, value), scale, scale), scale));
        print_lanes(dtype, "choose", lanes_choose(dtype, mask, value, scale));
        print_lanes(dtype, "scale nonzero", lanes_scale(dtype, mask_nonzero(dtype, value), value, scale));
    }
    print_bits(dtype, "mask", mask);
    print_bits(dtype, "positive", mask_positive(dtype, mask, value));
    print_bits(dtype, "nonzero", mask_nonzero(dtype, value));
}

int main(void)
{
    known_answers();
    check_which();
    for (int trial = 0; trial < TRIALS; trial++) {
        check_blocks();
        check_chains();
        check_bitslices();
        printf("float32\n");
        check_lanes(FLOAT32);
        printf("float64\n");
        check_lanes(FLOAT64);
        printf("float16\n");
        check_lanes(FLOAT16);
        printf("bfloat16\n");
        check_lanes(BFLOAT16);
    }
    return 0;
}
