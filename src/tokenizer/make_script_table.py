#!/usr/bin/env python3
"""Writes script_table.h: the scripts that the pre-tokenizer UnicodeScripts of the Hugging Face
`tokenizers` library tells apart, read off its behaviour one code point at a time.

    pip install tokenizers
    python src/tokenizer/make_script_table.py > src/tokenizer/script_table.h
"""
import tokenizers
from tokenizers import pre_tokenizers

split = pre_tokenizers.UnicodeScripts().pre_tokenize_str


def together(a, b):
    return len(split(a + b)) == 1


representatives = ["a", "\u0430"]  # of scripts 1, 2, ...
numbers = []  # of each code point
last = 1
for point in range(0x110000):
    c = chr(point)
    if 0xD800 <= point < 0xE000:
        numbers.append(0)
    elif together("a", c) and together("\u0430", c):
        numbers.append(0)  # fits any
    elif together(representatives[last - 1], c):
        numbers.append(last)
    else:
        found = [i + 1 for i, r in enumerate(representatives) if together(r, c)]
        if not found:
            representatives.append(c)
            found = [len(representatives)]
        last = found[0]
        numbers.append(last)

ranges = [(p, n) for p, n in enumerate(numbers) if p == 0 or numbers[p - 1] != n]
print(f"""/* The scripts of the pre-tokenizer UnicodeScripts of the Hugging Face tokenizers library
 * {tokenizers.__version__}, as the first code points of ranges and a number for each script; 0 fits any.
 * Written by make_script_table.py; do not edit. */
#ifndef BG_TOKENIZER_SCRIPT_TABLE_H
#define BG_TOKENIZER_SCRIPT_TABLE_H

#include <stdint.h>

static const struct {{
    uint32_t first;
    uint8_t script;
}} bg_unicode_scripts[] = {{""")
print(", ".join(f"{{0x{p:x}, {n}}}" for p, n in ranges))
print("};\n\n#endif")
