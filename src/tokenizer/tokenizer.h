/* Tokenizers as the rest of the library sees them, beyond the public functions: parsing from
 * memory, special tokens, truncation. The pipeline is that of Hugging Face `tokenizers`:
 *   added tokens -> normalizer -> added tokens -> pre-tokenizer -> model -> post-processor
 * and back through the decoder. internal.h holds the parts.
 * A tokenizer keeps a cache of words and scratch memory of its regular expressions: one thread at a
 * time. */
#ifndef BG_TOKENIZER_TOKENIZER_H
#define BG_TOKENIZER_TOKENIZER_H

#include "bitgauge/bitgauge.h"

/* Parses tokenizer.json from memory; `where` names it in errors. Its truncation and padding
 * settings are for bg_tokenizer_encode_batch alone. Special tokens are then known by their usual
 * spellings. */
bg_status bg_tokenizer_parse(const char *json, size_t size, const char *where, bg_tokenizer **out,
                             bg_error *err);

/* What a special token is for. */
typedef enum {
    BG_TOKEN_BOS,
    BG_TOKEN_EOS,
    BG_TOKEN_UNK,
    BG_TOKEN_PAD,
    BG_TOKEN_CLS,
    BG_TOKEN_SEP,
    BG_TOKEN_MASK,
    BG_TOKEN_COUNT,
} bg_special_token;

/* Its id as tokenizer_config.json or special_tokens_map.json names it, or, where there is neither,
 * as it is usually spelled; -1 where there is none. */
int32_t bg_tokenizer_special(const bg_tokenizer *tokenizer, bg_special_token which);

/* As bg_tokenizer_encode, but at most max_length ids: the text's own are cut (at the right, or at
 * the left where tokenizer_config.json says truncation_side "left") and the special tokens of the
 * template stay. max_length must leave room for them. */
bg_status bg_tokenizer_encode_truncated(const bg_tokenizer *tokenizer, const char *text,
                                        size_t size, bool add_special, size_t max_length,
                                        int32_t **ids, size_t *n, bg_error *err);

#endif
