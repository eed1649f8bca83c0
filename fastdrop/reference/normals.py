"""Normal numbers from random bits (Box and Muller 1958), in float32 arithmetic of a fixed order.

NumPy rounds every operation as IEEE 754 demands. The kernels do the same operations in the same order
and therefore give the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastdrop.reference.generator import ars

Words = NDArray[np.uint32]
Floats = NDArray[np.float32]

NORMALS = 1 << 32  # the upper half of a counter; keep decisions use values below 64
GROUP = 32  # the positions whose normals come from 8 calls of the generator
ONE, ROOT_HALF = 0x3F800000, 0x3F3504F3  # the bits of the float32 numbers 1 and sqrt(1/2)

# These are minimax polynomials with float32 coefficients, the lowest power first.
LOG = "-0x1p+1 0x1.fffffap-1 -0x1.5556fp-1 0x1.0004a8p-1 -0x1.98d3ap-2 0x1.535c2ap-2 -0x1.317caap-2"
LOG_POLYNOMIAL = (*LOG.split(), "0x1.2505aep-2", "-0x1.65f0ep-3")  # -2 log(1 + f) / f, in f
# The cosine is that of pi/4 x, and the sine is divided by x.
COSINE_POLYNOMIAL = ("0x1p+0", "-0x1.3bd39cp-2", "0x1.03b058p-6", "-0x1.4e78bep-12")  # in x**2
SINE_POLYNOMIAL = ("0x1.921fb6p-1", "-0x1.4abc24p-4", "0x1.4680a4p-9", "-0x1.33198ep-15")  # in x**2
MINUS_TWO_LOG_2 = "-0x1.62e43p+0"


def float32(hexadecimal: str) -> np.float32:
    return np.float32(float.fromhex(hexadecimal))


def polynomial(coefficients: tuple[str, ...], x: Floats) -> Floats:
    """Evaluate a polynomial by Horner's rule, from the highest power on."""
    result = np.full_like(x, float32(coefficients[-1]))
    for coefficient in coefficients[-2::-1]:
        result = result * x + float32(coefficient)
    return result


def signed(words: Words) -> NDArray[np.int32]:
    return words.view(np.int32)


def radius(word: Words) -> Floats:
    """``sqrt(-2 log u)`` for ``u = (word + 1/2) / 2**32 = 2**e (1 + f)``, f from about -0.3 to 0.4."""
    above_half = (signed(word) >> 31).view(np.uint32)  # all bits set where u > 1/2, where x is u - 1
    x = (signed(word).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    u = (ONE & above_half).view(np.float32) + x
    exponent = (u.view(np.uint32) - np.uint32(ROOT_HALF)) & np.uint32(0xFF800000)  # e, shifted by 23
    scale = np.uint32(ONE) - exponent  # the bits of 2**-e
    f = ((scale & above_half).view(np.float32) - np.float32(1)) + x * scale.view(np.float32)
    e = (signed(exponent) >> 23).astype(np.float32)
    return np.sqrt(e * float32(MINUS_TWO_LOG_2) + f * polynomial(LOG_POLYNOMIAL, f))


def direction(word: Words) -> tuple[Floats, Floats]:
    """Return cosine and sine of a uniform angle: 30 bits give pi/4 x, -1 < x < 1, and 2 the quadrant."""
    x = signed(word << np.uint32(2) | np.uint32(2)).astype(np.float32) * np.float32(2.0**-31)
    square = x * x
    cosine = polynomial(COSINE_POLYNOMIAL, square)
    sine = polynomial(SINE_POLYNOMIAL, square) * x
    cosine = np.where(word >> 31 & 1, -cosine, cosine)
    exchanged = word >> 30 & 1
    return np.where(exchanged, sine, cosine), np.where(exchanged, cosine, sine)


def normals(seed: int, start: int, count: int) -> Floats:
    """Return the standard normals of the positions ``start, ..., start + count - 1``."""
    if count == 0:
        return np.empty(0, np.float32)
    first, last = start // GROUP, (start + count - 1) // GROUP
    counters = np.empty(((last - first + 1) * GROUP // 4, 2), "<u8")
    counters[:, 0] = np.uint64(first * GROUP // 4) + np.arange(len(counters), dtype=np.uint64)
    counters[:, 1] = NORMALS
    random = np.ascontiguousarray(ars(counters.view(np.uint8), seed))
    words = random.view("<u4").astype(np.uint32).reshape(-1, 2, GROUP // 2)
    r, (cosine, sine) = radius(words[:, 0].copy()), direction(words[:, 1].copy())
    pairs = np.stack([r * cosine, r * sine], axis=1)
    return pairs.ravel()[start - first * GROUP :][:count]
