/* A group is GROUP_SIZE blocks of 128 bits, in as many registers as it needs. The header of an instruction set includes
 * this file after it has defined `reg`, which holds REG_BLOCKS blocks, the functions of one register, and REGS. */
#ifndef FASTDROP_BLOCKS_H
#define FASTDROP_BLOCKS_H

enum { GROUP_SIZE = REGS * REG_BLOCKS, REG_WORDS = 2 * REG_BLOCKS };

typedef struct { reg part[REGS]; } blocks;

#define EACH_PART for (int i = 0; i < REGS; i++)

VOCABULARY blocks blocks_set(uint64_t low, uint64_t high)
{
    blocks a;
    EACH_PART a.part[i] = reg_set(low, high);
    return a;
}

VOCABULARY blocks blocks_count(uint64_t first)
{
    blocks a;
    EACH_PART a.part[i] = reg_count(first, REG_BLOCKS * i);
    return a;
}

VOCABULARY blocks blocks_xor(blocks a, blocks b)
{
    EACH_PART a.part[i] = reg_xor(a.part[i], b.part[i]);
    return a;
}

VOCABULARY blocks blocks_and(blocks a, blocks b)
{
    EACH_PART a.part[i] = reg_and(a.part[i], b.part[i]);
    return a;
}

VOCABULARY blocks blocks_andnot(blocks a, blocks b)
{
    EACH_PART a.part[i] = reg_andnot(a.part[i], b.part[i]);
    return a;
}

VOCABULARY blocks blocks_below(blocks below, blocks tied, blocks bits)
{
    EACH_PART below.part[i] = reg_below(below.part[i], tied.part[i], bits.part[i]);
    return below;
}

VOCABULARY blocks blocks_aes(blocks state, blocks key)
{
    EACH_PART state.part[i] = reg_aes(state.part[i], key.part[i]);
    return state;
}

VOCABULARY blocks blocks_aes_last(blocks state, blocks key)
{
    EACH_PART state.part[i] = reg_aes_last(state.part[i], key.part[i]);
    return state;
}

VOCABULARY uint64_t blocks_which(blocks a)
{
    uint64_t which = 0;
    EACH_PART which |= reg_which(a.part[i]) << REG_WORDS * i;
    return which;
}

VOCABULARY blocks blocks_load(const uint64_t *words)
{
    blocks a;
    EACH_PART a.part[i] = reg_load(words + REG_WORDS * i);
    return a;
}

VOCABULARY void blocks_store(uint64_t *words, blocks a)
{
    EACH_PART reg_store(words + REG_WORDS * i, a.part[i]);
}

#undef EACH_PART

#endif
