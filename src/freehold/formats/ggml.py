"""ggml's tensor types and GGUF's file types: their numbers, names and sizes.

A quantised type stores `block` elements in `bytes_per_block` bytes; a row is a whole number of blocks. The numbers are
the ones that stand in files, the names the ones people know (Q4_K, MXFP4). Types that were withdrawn but still lie in
older files are listed too, since their sizes are known; numbers 4 and 5 (Q4_2, Q4_3) never left a development branch.

It says how many bytes a tensor takes, not how to decode it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GgmlType:
    number: int
    name: str
    block: int
    bytes_per_block: int

    def nbytes(self, shape: tuple[int, ...]) -> int | None:
        """Bytes of a row-major `shape`; None if its last dimension is not a whole number of blocks."""
        if (shape[-1] if shape else 1) % self.block:
            return None
        return math.prod(shape) // self.block * self.bytes_per_block


# number name elements-per-block bytes-per-block
_TYPES = """
0 F32 1 4
1 F16 1 2
2 Q4_0 32 18
3 Q4_1 32 20
6 Q5_0 32 22
7 Q5_1 32 24
8 Q8_0 32 34
9 Q8_1 32 36
10 Q2_K 256 84
11 Q3_K 256 110
12 Q4_K 256 144
13 Q5_K 256 176
14 Q6_K 256 210
15 Q8_K 256 292
16 IQ2_XXS 256 66
17 IQ2_XS 256 74
18 IQ3_XXS 256 98
19 IQ1_S 256 50
20 IQ4_NL 32 18
21 IQ3_S 256 110
22 IQ2_S 256 82
23 IQ4_XS 256 136
24 I8 1 1
25 I16 1 2
26 I32 1 4
27 I64 1 8
28 F64 1 8
29 IQ1_M 256 56
30 BF16 1 2
31 Q4_0_4_4 32 18
32 Q4_0_4_8 32 18
33 Q4_0_8_8 32 18
34 TQ1_0 256 54
35 TQ2_0 256 66
36 IQ4_NL_4_4 32 18
37 IQ4_NL_4_8 32 18
38 IQ4_NL_8_8 32 18
39 MXFP4 32 17
40 NVFP4 64 36
41 Q1_0 128 18
"""

TYPES: dict[int, GgmlType] = {
    int(number): GgmlType(int(number), name, int(block), int(size))
    for number, name, block, size in (line.split() for line in _TYPES.strip().splitlines())
}
BY_NAME: dict[str, GgmlType] = {t.name: t for t in TYPES.values()}

#: `general.file_type`: what a file's maker calls the mix of types in it. Numbers 4, 5, 6 and 33..35 were withdrawn.
FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    4: "Q4_1_SOME_F16",
    5: "Q4_2",
    6: "Q4_3",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    33: "Q4_0_4_4",
    34: "Q4_0_4_8",
    35: "Q4_0_8_8",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}
#: Set by a tool that did not know the mix and guessed it: says nothing.
FILE_TYPE_GUESSED = 1024
