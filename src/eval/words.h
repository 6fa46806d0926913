/* Text as Python's str sees it: the scoring rules that tasks and perplexities follow are written in
 * its terms. UTF-8; where that is invalid, a byte counts as a character that is no space. */
#ifndef BG_EVAL_WORDS_H
#define BG_EVAL_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* str.isspace of one character. */
bool bg_is_space(int32_t character);

bool bg_is_utf8(const char *text, size_t size);

/* Bytes of white space at the beginning and at the end of a text, and how many characters it has.
 */
size_t bg_leading_space(const char *text, size_t size);
size_t bg_trailing_space(const char *text, size_t size);
size_t bg_count_characters(const char *text, size_t size);

#endif
