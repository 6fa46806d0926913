/* SentencePiece's compiled normalization rules ("precompiled_charsmap"): a double-array trie
 * (Darts: Aoe, 1989; Yata's darts-clone) from strings to places in a block of NUL-terminated
 * replacements.
 *   bytes 0-3: size of the trie in bytes, little-endian; the trie; the replacements, UTF-8
 * The data comes from a file: every step through the trie is checked. */
#ifndef BG_TOKENIZER_CHARSMAP_H
#define BG_TOKENIZER_CHARSMAP_H

#include "core/error.h"
#include "core/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Start from {0}. */
typedef struct {
    uint32_t *units; /* (n_units) the trie */
    size_t n_units;
    char *text; /* (size) the replacements, and a NUL */
    size_t size;
    bool longest; /* apply the rules as SentencePiece itself does; see bg_charsmap_apply */
} bg_charsmap;

/* `where` names the source in errors. */
bg_status bg_charsmap_parse(const uint8_t *data, size_t size, const char *where, bg_charsmap *out,
                            bg_error *err);
bg_status bg_charsmap_base64(const char *encoded, const char *where, bg_charsmap *out,
                             bg_error *err);
void bg_charsmap_free(bg_charsmap *map);

/* Appends the text (valid UTF-8) with the rules applied as Hugging Face `tokenizers` does, grapheme
 * by grapheme: one of fewer than six bytes becomes what the shortest rule that it begins with says;
 * another is rewritten character by character. With `longest`, from the left, what the longest rule
 * says that the rest of the text begins with. More than `limit` bytes of output are an error. */
bg_status bg_charsmap_apply(const bg_charsmap *map, const char *text, size_t size, size_t limit,
                            bg_text *out, bg_error *err);

#endif
