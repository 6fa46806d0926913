#!/usr/bin/env python3
"""Writes unicode_tables.h: the character classes of the Hugging Face `tokenizers` library.

That library takes some classes from crates whose Unicode tables are years old, so a character
class of today's Unicode is not the class a tokenizer was trained with. The classes are read off
the library's behaviour, one code point at a time. Where utf8proc has the tables, only what the
library does otherwise is written.

    pip install tokenizers
    python src/tokenizer/make_unicode_tables.py > src/tokenizer/unicode_tables.h
"""
import ctypes
import struct

import tokenizers
from tokenizers import normalizers, pre_tokenizers

clean = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False,
                                   strip_accents=False, lowercase=False)
strip = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False,
                                   strip_accents=True, lowercase=False)
marks = normalizers.StripAccents()
punctuation = pre_tokenizers.Punctuation()
whitespace = pre_tokenizers.Whitespace()
digits = pre_tokenizers.Digits()
lowercase, nfd, nfkd = normalizers.Lowercase(), normalizers.NFD(), normalizers.NFKD()

utf8proc = ctypes.CDLL("libutf8proc.so.2")
utf8proc.utf8proc_get_property.restype = ctypes.POINTER(ctypes.c_int16)


def combining_class(c):
    return utf8proc.utf8proc_get_property(ord(c))[1]


def decomposes(c):
    COMPAT_DECOMPOSE = 1 << 2 | 1 << 4
    points = (ctypes.c_int32 * 32)()
    n = utf8proc.utf8proc_decompose_char(ord(c), points, 32, COMPAT_DECOMPOSE, ctypes.byref(ctypes.c_int()))
    return n != 1 or points[0] != ord(c)



# A character map with one rule, "a" becomes "b": of a grapheme "a" and a mark only "b" is left.
units = [0] * 0x200
units[0] = 1 << 10                          # the root's children are at 1 ^ byte
units[1 ^ 0x61] = 0x61 | 1 << 8 | 2 << 10   # "a", with a leaf at 2 ^ its own place
units[2 ^ 1 ^ 0x61] = 1 << 31               # the leaf: replacement 0
charsmap = normalizers.Precompiled(
    struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + b"b\0")

CLASSES = {
    "bg_unicode_punctuation": ("Punctuation, ASCII symbols included (pre-tokenizers "
                               "BertPreTokenizer and Punctuation).",
                               lambda c: len(punctuation.pre_tokenize_str("a" + c + "a")) == 3),
    "bg_unicode_removed": ("Control, format and private-use characters, NUL and U+FFFD (normalizer "
                           "BertNormalizer, clean_text).",
                           lambda c: clean.normalize_str(c) == ""),
    "bg_unicode_nonspacing": ("Nonspacing marks (normalizer BertNormalizer, strip_accents).",
                              lambda c: strip.normalize_str(c) == ""),
    "bg_unicode_mark": ("Combining marks (normalizer StripAccents).",
                        lambda c: marks.normalize_str(c) == ""),
    "bg_unicode_word": ("Word characters, \\w (pre-tokenizer Whitespace, single_word).",
                        lambda c: len(whitespace.pre_tokenize_str("a" + c)) == 1
                        and len(whitespace.pre_tokenize_str("a" + c)[0][0]) == 2),
    "bg_unicode_numeric": ("Digits and other numbers (pre-tokenizer Digits).",
                           lambda c: len(digits.pre_tokenize_str("a" + c)) == 2),
    "bg_unicode_unclassed": ("Marks that stay where they are among others (normalizers NFC, NFD, ...).",
                             lambda c: 0 < combining_class(c) < 240
                             and nfd.normalize_str("\u0345" + c) == "\u0345" + c),
    "bg_unicode_whole": ("What the compatibility forms leave alone (normalizers NFKC, NFKD).",
                         lambda c: decomposes(c) and nfkd.normalize_str(c) == c),
    "bg_unicode_extends": ("What joins a letter before it in one grapheme (normalizer Precompiled).",
                           lambda c: charsmap.normalize_str("a" + c) == "b"),
    "bg_unicode_prepends": ("What joins a letter after it in one grapheme (normalizer Precompiled).",
                            lambda c: charsmap.normalize_str(c + "a\u0301").endswith("b\u0301")),
}

print(f"""/* Character classes of the Hugging Face tokenizers library {tokenizers.__version__}, as sorted
 * ranges of code points. Written by make_unicode_tables.py; do not edit. */
#ifndef BG_TOKENIZER_UNICODE_TABLES_H
#define BG_TOKENIZER_UNICODE_TABLES_H

#include <stdint.h>

typedef struct {{
    uint32_t first, last;
}} bg_unicode_range;
""")
for name, (comment, member) in CLASSES.items():
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and member(chr(c))]
    ranges = []
    for c in points:
        if ranges and ranges[-1][1] + 1 == c:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    print(f"/* {comment} */\nstatic const bg_unicode_range {name}[] = {{")
    print(", ".join(f"{{0x{a:x}, 0x{b:x}}}" for a, b in ranges))
    print("};\n")
pairs = [(c, ord(lowercase.normalize_str(chr(c)))) for c in range(0x110000)
         if not 0xD800 <= c < 0xE000 and len(lowercase.normalize_str(chr(c))) == 1
         and ord(lowercase.normalize_str(chr(c))) != utf8proc.utf8proc_tolower(c)]
print("/* Letters, and their lower case (normalizers Lowercase, BertNormalizer). */")
print("static const uint32_t bg_unicode_lower[][2] = {")
print(", ".join(f"{{0x{a:x}, 0x{b:x}}}" for a, b in pairs))
print("};\n\n#endif")
