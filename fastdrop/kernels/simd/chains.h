/* The first planes of one register of blocks are drawn side by side. Each plane is a chain of rounds, in which each round
 * waits for the one before, so a CPU that begins a round in every cycle needs several chains. A plane of a group has fewer
 * of them than a register of blocks has planes. The chains of the next register begin where those of this one end.
 *
 * Where the order of instructions is left to a compiler, it keeps more values than there are registers. PIN fixes it. The
 * header of an instruction set says by CHAINED whether chains were measured to be faster than groups, and defines PIN. */
#ifndef FASTDROP_CHAINS_H
#define FASTDROP_CHAINS_H

#ifndef PIN
#define PIN(value) (void)(value)
#endif

enum { CHAIN_ROUNDS = 7 };

#define EACH_CHAIN for (int p = 0; p < FIRST_PLANES; p++)

typedef struct { reg plane[FIRST_PLANES]; } chains;

/* This is what all blocks of a draw have in common. The last key includes the plane's bit of the threshold, so a bit of
 * the last round's result says that the element is decided. `change` is what the threshold's bit differs by from that of
 * the plane before: those of all planes up to the one that decides an element add up to the bit there, which says U < T. */
typedef struct {
    reg key[CHAIN_ROUNDS];
    reg difference[FIRST_PLANES];
    reg last_key[FIRST_PLANES];
    reg change[FIRST_PLANES + 1];
} chains_key;

VOCABULARY void chains_prepare(
    chains_key *draw, const uint64_t *key_low, const uint64_t *key_high, const uint64_t *difference, uint64_t threshold)
{
    uint64_t before = 0;
    for (int r = 0; r < CHAIN_ROUNDS; r++) draw->key[r] = reg_set(key_low[r], key_high[r]);
    EACH_CHAIN {
        uint64_t bits = 0 - (threshold >> (63 - p) & 1);
        draw->difference[p] = reg_set(0, difference[p]);
        draw->last_key[p] = reg_set(key_low[CHAIN_ROUNDS] ^ bits, key_high[CHAIN_ROUNDS] ^ bits);
        draw->change[p] = reg_set(bits ^ before, bits ^ before);
        before = bits;
    }
    draw->change[FIRST_PLANES] = reg_set(before, before);
}

/* Return the states of plane 0 after the first round. */
VOCABULARY reg chains_first_round(const chains_key *draw, reg counters)
{
    reg state = reg_aes(reg_xor(counters, draw->key[0]), draw->key[1]);
    PIN(state);
    return state;
}

VOCABULARY reg chains_second_round(const chains_key *draw, reg first_round, int p)
{
    reg state = reg_aes(reg_xor(first_round, draw->difference[p]), draw->key[2]);
    PIN(state);
    return state;
}

/* Return all states after the second round. */
VOCABULARY chains chains_begin(const chains_key *draw, reg first_round)
{
    chains state;
    EACH_CHAIN state.plane[p] = chains_second_round(draw, first_round, p);
    return state;
}

VOCABULARY chains chains_round(const chains_key *draw, chains state, int round)
{
    reg key = draw->key[round];
    EACH_CHAIN {
        state.plane[p] = reg_aes(state.plane[p], key);
        PIN(state.plane[p]);
    }
    return state;
}

/* Finish the last round and store which elements are below the threshold, and which are still tied. `which` gets a bit
 * for each word of `tied` that is not zero. Return the next register's states after its second round. */
VOCABULARY chains chains_turn(
    const chains_key *draw, chains state, reg next_first_round, uint64_t *to_below, uint64_t *to_tied, uint64_t *which)
{
    reg below = draw->change[0], tied = reg_set(~(uint64_t)0, ~(uint64_t)0);
    EACH_CHAIN {
        tied = reg_andnot(tied, reg_aes_last(state.plane[p], draw->last_key[p]));
        below = reg_xor(below, reg_and(tied, draw->change[p + 1]));
        PIN(tied);
        PIN(below);
        state.plane[p] = chains_second_round(draw, next_first_round, p);
    }
    reg_store(to_below, below);
    reg_store(to_tied, tied);
    *which = reg_which(tied);
    return state;
}

#undef EACH_CHAIN
#undef PIN

#endif
