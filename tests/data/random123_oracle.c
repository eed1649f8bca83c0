/* Random123's own ARS as a filter, independent of everything in the package. Lines in, lines out:
 *
 *   A rounds counter[4] key[4]                  ->  output[4]
 *   K seed_words[4] offset threshold[2] count   ->  packed bits: whether U < threshold, in hexadecimal
 *
 * Words are 32-bit, hexadecimal, least significant first; offset and threshold words are decimal
 * and hexadecimal 64-bit numbers. A threshold is its low 64 bits and whether it is 2**64.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

#include <Random123/ars.h>

static ars4x32_ctr_t read_words(void)
{
    ars4x32_ctr_t words;
    for (int i = 0; i < 4; i++)
        if (scanf("%" SCNx32, &words.v[i]) != 1) words.v[i] = 0;
    return words;
}

/* The definition, an element at a time: bit j of U, most significant first, is bit i % 128 of
 * the generator's answer to the counter i / 128 + (j << 64). */
static int kept(ars4x32_key_t key, uint64_t i, uint64_t threshold)
{
    uint64_t uniform = 0;
    for (uint32_t j = 0; j < 64; j++) {
        uint64_t block = i / 128;
        ars4x32_ctr_t counter = {{(uint32_t)block, (uint32_t)(block >> 32), j, 0}};
        ars4x32_ctr_t output = ars4x32_R(7, counter, key);
        uniform = uniform << 1 | (output.v[i % 128 / 32] >> (i % 32) & 1);
    }
    return uniform < threshold;
}

static void answer_ars(void)
{
    unsigned rounds;
    if (scanf("%u", &rounds) != 1) return;
    ars4x32_ctr_t counter = read_words(), key = read_words();
    ars4x32_ctr_t output = ars4x32_R(rounds, counter, key);
    printf("%08x %08x %08x %08x\n", output.v[0], output.v[1], output.v[2], output.v[3]);
}

static void answer_kept(void)
{
    uint64_t offset, threshold, count;
    int all;
    ars4x32_key_t key = read_words();
    if (scanf("%" SCNu64 " %" SCNx64 " %d %" SCNu64, &offset, &threshold, &all, &count) != 4) return;
    for (uint64_t byte = 0; byte < (count + 7) / 8; byte++) {
        unsigned bits = 0;
        for (unsigned k = 0; k < 8 && 8 * byte + k < count; k++)
            bits |= (unsigned)(all || kept(key, offset + 8 * byte + k, threshold)) << k;
        printf("%02x", bits);
    }
    printf("\n");
}

int main(void)
{
    char kind;
    while (scanf(" %c", &kind) == 1) {
        if (kind == 'A') answer_ars();
        else answer_kept();
    }
    return 0;
}
