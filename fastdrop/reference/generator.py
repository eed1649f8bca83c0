"""ARS, the generator: seven rounds of AES with a simple key schedule (Salmon et al. 2011).

It is a pure function. A 128-bit seed and a 128-bit counter give 128 random bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 7
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # golden ratio, sqrt(3) - 1: Random123's constants


def xtime(byte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Multiply by x in AES's field GF(2**8), modulo x**8 + x**4 + x**3 + x + 1 (FIPS 197, 4.2)."""
    return (byte << 1) ^ np.where(byte & 0x80, np.uint8(0x1B), np.uint8(0))


def substitution_box() -> NDArray[np.uint8]:
    """SubBytes: the inverse in the field, then an affine map of its bits (FIPS 197, 5.1.1)."""
    powers = [np.uint8(1)]  # of the generator 3 = x + 1
    while len(powers) < 255:
        powers.append(xtime(powers[-1]) ^ powers[-1])
    inverse = np.zeros(256, np.uint8)
    inverse[powers] = powers[:1] + powers[:0:-1]
    rotated = [(inverse << k) | (inverse >> (8 - k)) for k in range(5)]
    return np.bitwise_xor.reduce(rotated) ^ np.uint8(0x63)


SBOX = substitution_box()
SHIFT_ROWS = np.array([(i + 4 * (i % 4)) % 16 for i in range(16)])  # byte i comes from byte SHIFT_ROWS[i]


def mix_columns(state: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Multiply each column by 3x**3 + x**2 + x + 2 (FIPS 197, 5.1.3): 2a + 3b + c + d, rotating."""
    a = state.reshape(-1, 4, 4)
    b = np.roll(a, -1, axis=2)
    return (xtime(a ^ b) ^ b ^ np.roll(b ^ np.roll(b, -1, axis=2), -1, axis=2)).reshape(-1, 16)


def round_key(seed: int, r: int) -> NDArray[np.uint8]:
    """The key of round r: each half of the seed plus r times a constant, as 16 bytes."""
    low, high = seed % 2**64, seed >> 64
    words = ((low + r * WEYL[0]) % 2**64, (high + r * WEYL[1]) % 2**64)
    return np.array(words, "<u8").view(np.uint8)


def ars(counters: NDArray[np.uint8], seed: int, rounds: int = ROUNDS) -> NDArray[np.uint8]:
    """Sixteen random bytes for each counter of 16 bytes: shape (n, 16) to shape (n, 16)."""
    state = counters ^ round_key(seed, 0)
    for r in range(1, rounds):
        state = mix_columns(SBOX[state][:, SHIFT_ROWS]) ^ round_key(seed, r)
    return SBOX[state][:, SHIFT_ROWS] ^ round_key(seed, rounds)
