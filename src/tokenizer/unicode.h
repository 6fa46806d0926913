/* Characters: UTF-8, and the character classes that tokenizers are defined with. */
#ifndef BG_TOKENIZER_UNICODE_H
#define BG_TOKENIZER_UNICODE_H

#include "core/error.h"
#include "core/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the longest prefix of the text that is valid UTF-8; `size` where all of it is. */
size_t bg_utf8_valid(const char *text, size_t size);

/* The code point at `text`, which must be valid UTF-8 and not empty; *length is its bytes. */
uint32_t bg_utf8_next(const char *text, size_t *length);
/* The last code point of the first `size` bytes, which must be valid UTF-8 and not empty. */
uint32_t bg_utf8_last(const char *text, size_t size, size_t *length);
size_t bg_utf8_count(const char *text, size_t size);
void bg_utf8_append(bg_text *text, uint32_t c);
/* Bytes of the extended grapheme cluster (UAX 29) that the text, valid UTF-8 and not empty, begins
 * with. */
size_t bg_grapheme(const char *text, size_t size);
/* Appends bytes that may be no UTF-8, with U+FFFD for each maximal ill-formed part (Unicode 15,
 * section 3.9, "U+FFFD Substitution of Maximal Subparts"). */
void bg_utf8_append_lossy(bg_text *text, const char *bytes, size_t n);

bool bg_is_whitespace(uint32_t c); /* property White_Space */
bool bg_is_word(uint32_t c);       /* \w of UTS 18: letters, marks, digits, connectors, joiners */
bool bg_is_numeric(uint32_t c);    /* categories Nd, Nl, No */
bool bg_is_punctuation(uint32_t c);
bool bg_is_removed(uint32_t c);    /* what BertNormalizer's clean_text drops; not \t \n \r */
bool bg_is_nonspacing(uint32_t c); /* category Mn */
bool bg_is_mark(uint32_t c);       /* categories Mn, Mc, Me */
/* The number of a script as the pre-tokenizer UnicodeScripts tells them apart, with the scripts of
 * Japanese as one; 0: fits any. */
unsigned bg_script(uint32_t c);
bool bg_is_chinese(uint32_t c); /* the blocks of ideographs that BertNormalizer sets apart */

/* Appends `c` in lower case, by itself: a final sigma is not looked for. */
void bg_append_lower(bg_text *text, uint32_t c);

/* Appends the text in a normalization form (UAX 15). */
typedef enum { BG_NFD = 0, BG_NFC = 1, BG_NFKD = 2, BG_NFKC = 3 } bg_normal_form;
bg_status bg_append_normalized(bg_text *out, const char *text, size_t size, bg_normal_form form,
                               bg_error *err);

/* The printable character that byte-level tokenizers write a byte as, and back (-1: none). */
uint32_t bg_byte_to_char(uint8_t byte);
int bg_char_to_byte(uint32_t c);

#endif
