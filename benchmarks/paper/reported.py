"""Holds what the LAWN paper (arXiv 2108.05839) reports: HR@10 and accuracy in percent, and ECE.

Standard errors are in brackets where the paper gives them. Its Table 4 holds the same figures as
its Tables 9 to 11. None of them ever stands in a measured column.
"""

import re
from typing import Any

from examples.training.traits import OptimizerName

Figures = dict[str, dict[OptimizerName, str]]  # By column, then by row.


def _read(table: str) -> Figures:
    """Read a table whose cells are two spaces apart or more."""
    header, *rows = (re.split(r"\s{2,}", line.strip()) for line in table.strip().splitlines())
    figures: Any = {
        column: {row: cells[i] for row, *cells in rows} for i, column in enumerate(header[1:])
    }
    return figures


def _by_row(table: str) -> Figures:
    """Read a table by row, then by column."""
    by_column: Any = _read(table)
    rows = dict.fromkeys(row for cells in by_column.values() for row in cells)
    return {row: {name: cells[row] for name, cells in by_column.items()} for row in rows}


TABLE_1 = _read("""
    study      imagenet-256  imagenet-16384
    sgd        76.00 (0.04)  74.48 (0.06)
    adam       71.16 (0.05)  70.60 (0.02)
    adam_lawn  76.18 (0.03)  76.07 (0.08)
    lamb_plus  74.30 (0.01)  73.43 (0.03)
    lamb_lawn  76.48 (0.05)  75.93 (0.02)
""")

TABLE_9 = _read("""
    study      movielens-100k-1k  movielens-100k-10k  movielens-100k-100k  movielens-100k-400k
    sgd        66.33 (0.24)       65.58 (0.17)        Fail                 Fail
    adam       66.01 (0.25)       66.03 (0.15)        63.20 (0.24)         63.98 (0.25)
    adam_lawn  66.81 (0.17)       66.91 (0.15)        66.24 (0.16)         66.14 (0.22)
    lamb       65.45 (0.25)       65.34 (0.16)        64.23 (0.16)         62.57 (0.17)
    lamb_lawn  66.56 (0.22)       66.54 (0.20)        66.52 (0.25)         66.14 (0.23)
""")

TABLE_10 = _read("""
    study      movielens-1m-1k  movielens-1m-10k  movielens-1m-100k  movielens-1m-1m
    sgd        70.91 (0.18)     69.31 (0.17)      Fail               Fail
    adam       69.87 (0.07)     70.12 (0.11)      69.28 (0.10)       68.99 (0.21)
    adam_lawn  70.80 (0.09)     70.41 (0.20)      70.77 (0.04)       70.66 (0.22)
    lamb       69.91 (0.12)     69.77 (0.09)      69.44 (0.10)       68.95 (0.12)
    lamb_lawn  70.86 (0.21)     70.86 (0.04)      70.68 (0.08)       70.34 (0.19)
""")

TABLE_11 = _read("""
    study      pinterest-20-1k  pinterest-20-10k  pinterest-20-100k  pinterest-20-1m
    sgd        86.62 (0.05)     85.57 (0.20)      Fail               Fail
    adam       87.27 (0.07)     85.97 (0.01)      85.81 (0.01)       85.30 (0.20)
    adam_lawn  86.85 (0.10)     86.61 (0.10)      86.04 (0.10)       86.06 (0.20)
    lamb       86.63 (0.10)     85.91 (0.10)      85.80 (0.10)       85.65 (0.20)
    lamb_lawn  86.83 (0.10)     86.25 (0.10)      85.99 (0.10)       86.07 (0.10)
""")

# Table 2; its rows for weight decay and LAWN are Adam's and Adam-LAWN's of Tables 7 and 10.
SMOOTHED = _read("""
    study  movielens-1m-10k  movielens-1m-100k  cifar10-4k  cifar10-10k  cifar100-4k  cifar100-10k
    adam   68.66             67.34              93.09       92.73        69.92        69.24
""")
BOUNDED = _read("""
    study  movielens-1m-10k  movielens-1m-100k  cifar10-4k  cifar10-10k  cifar100-4k  cifar100-10k
    adam   44.54             45.52              92.99       91.66        70.66        69.35
""")

# Table 5; its columns for cross-entropy are those of Tables 7 and 10.
TABLE_5 = _by_row("""
    study                        adam   adam_lawn
    movielens-1m-100k-focal-0.5  67.33  71.24
    movielens-1m-100k-focal-2    69.02  69.68
    movielens-1m-100k-focal-5    67.17  69.24
    movielens-1m-1m-focal-0.5    66.42  70.53
    movielens-1m-1m-focal-2      67.40  69.56
    movielens-1m-1m-focal-5      66.62  68.66
    cifar10-4k-focal-0.5         93.07  93.89
    cifar10-4k-focal-2           91.16  92.22
    cifar10-4k-focal-5           87.88  89.14
    cifar10-10k-focal-0.5        92.51  93.21
    cifar10-10k-focal-2          89.79  91.20
    cifar10-10k-focal-5          86.82  88.93
    cifar100-4k-focal-0.5        69.19  73.05
    cifar100-4k-focal-2          68.85  73.29
    cifar100-4k-focal-5          67.72  72.89
    cifar100-10k-focal-0.5       67.94  72.51
    cifar100-10k-focal-2         67.28  72.55
    cifar100-10k-focal-5         66.11  70.95
""")

# Expected calibration error; the batch size is not given.
TABLE_6 = _read("""
    dataset    cifar10  cifar100
    adam       0.132    0.292
    adam_lawn  0.048    0.188
""")

# Table 3 holds the same figures without their errors.
TABLE_7 = _read("""
    study      cifar10-256   cifar10-4k    cifar10-10k   cifar100-256  cifar100-4k   cifar100-10k
    sgd        93.99 (0.05)  93.48 (0.09)  92.99 (0.20)  73.49 (0.43)  71.68 (0.26)  71.07 (0.14)
    adam       93.48 (0.11)  92.93 (0.01)  92.63 (0.06)  70.84 (0.23)  68.91 (0.05)  68.61 (0.28)
    adam_lawn  93.91 (0.04)  93.74 (0.04)  93.84 (0.08)  72.99 (0.02)  73.12 (0.11)  72.97 (0.10)
    lamb       93.76 (0.07)  93.27 (0.08)  92.91 (0.03)  71.29 (0.11)  69.39 (0.06)  67.76 (0.22)
    lamb_lawn  93.67 (0.04)  93.22 (0.05)  92.92 (0.03)  71.25 (0.17)  69.68 (0.16)  69.16 (0.09)
""")
