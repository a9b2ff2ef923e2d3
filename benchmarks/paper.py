"""What the LAWN paper (arXiv 2108.05839) reports of item recommendation: test HR@10 in percent.

Standard errors are in brackets where the paper gives them. Its Table 4 holds the same figures as
its Tables 9 to 11. None of them ever stands in a measured column.
"""

import re

# Batch size -> optimizer -> figure, by table.
Figures = dict[str, dict[str, str]]


def _read(table: str) -> Figures:
    """A table whose cells are two spaces apart or more, by column and row."""
    header, *rows = (re.split(r"\s{2,}", line.strip()) for line in table.strip().splitlines())
    return {column: {row: cells[i] for row, *cells in rows} for i, column in enumerate(header[1:])}


TABLE_9 = _read("""
    movielens-100k  1k            10k           100k          400k
    sgd             66.33 (0.24)  65.58 (0.17)  Fail          Fail
    adam            66.01 (0.25)  66.03 (0.15)  63.20 (0.24)  63.98 (0.25)
    adam_lawn       66.81 (0.17)  66.91 (0.15)  66.24 (0.16)  66.14 (0.22)
    lamb            65.45 (0.25)  65.34 (0.16)  64.23 (0.16)  62.57 (0.17)
    lamb_lawn       66.56 (0.22)  66.54 (0.20)  66.52 (0.25)  66.14 (0.23)
""")

TABLE_10 = _read("""
    movielens-1m    1k            10k           100k          1m
    sgd             70.91 (0.18)  69.31 (0.17)  Fail          Fail
    adam            69.87 (0.07)  70.12 (0.11)  69.28 (0.10)  68.99 (0.21)
    adam_lawn       70.80 (0.09)  70.41 (0.20)  70.77 (0.04)  70.66 (0.22)
    lamb            69.91 (0.12)  69.77 (0.09)  69.44 (0.10)  68.95 (0.12)
    lamb_lawn       70.86 (0.21)  70.86 (0.04)  70.68 (0.08)  70.34 (0.19)
""")

TABLE_11 = _read("""
    pinterest-20    1k            10k           100k          1m
    sgd             86.62 (0.05)  85.57 (0.20)  Fail          Fail
    adam            87.27 (0.07)  85.97 (0.01)  85.81 (0.01)  85.30 (0.20)
    adam_lawn       86.85 (0.10)  86.61 (0.10)  86.04 (0.10)  86.06 (0.20)
    lamb            86.63 (0.10)  85.91 (0.10)  85.80 (0.10)  85.65 (0.20)
    lamb_lawn       86.83 (0.10)  86.25 (0.10)  85.99 (0.10)  86.07 (0.10)
""")

# Table 2, MovieLens-1M; its rows for weight decay and LAWN are Adam's and Adam-LAWN's of Table 10.
TABLE_2 = _read("""
    movielens-1m    10k    100k
    smoothed        68.66  67.34
    bounded         44.54  45.52
""")

# Table 5, MovieLens-1M; its columns for cross-entropy are those of Table 10.
TABLE_5 = _read("""
    movielens-1m    100k-focal-0.5  100k-focal-2  100k-focal-5  1m-focal-0.5  1m-focal-2  1m-focal-5
    adam            67.33           69.02         67.17         66.42         67.40       66.62
    adam_lawn       71.24           69.68         69.24         70.53         69.56       68.66
""")
