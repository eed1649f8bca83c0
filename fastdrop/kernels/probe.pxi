# This function is for tests alone: it lets them compare a vocabulary with known answers. Nothing else calls it.

def probe_ars(counter: int, seed: int, rounds: int = ROUNDS) -> bytes:
    """Return the 16 bytes of each block of a group, all of which have one counter and key."""
    cdef Key key
    cdef uint64_t words[2 * 64]
    cdef blocks state
    key_schedule(&key, seed & 0xFFFFFFFFFFFFFFFF, seed >> 64)
    state = ars(&key, blocks_set(counter & 0xFFFFFFFFFFFFFFFF, counter >> 64), rounds)
    blocks_store(words, state)
    return (<char*> words)[:16 * GROUP_SIZE]
