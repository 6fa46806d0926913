/* What the targets of tokenizer files do with a tokenizer that was accepted. */
#ifndef BG_FUZZ_USE_TOKENIZER_H
#define BG_FUZZ_USE_TOKENIZER_H

#include "tokenizer/tokenizer.h"

#include <stdlib.h>

/* A failure must be named, and be no defect. */
static inline void check(bg_status status, const bg_error *err)
{
    if (status != BG_OK && (err->status != status || !*err->message || status == BG_ERR_INTERNAL))
        abort();
}

/* Encodes a text and decodes what came of it, with special tokens and without. */
static inline void there_and_back(const bg_tokenizer *t, const char *text, size_t size)
{
    int32_t *ids = NULL;
    size_t n = 0;
    bg_error err = {0};
    bg_status status = bg_tokenizer_encode(t, text, size, true, &ids, &n, &err);
    check(status, &err);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0) abort();
    for (int skip = 0; status == BG_OK && skip < 2; skip++) {
        char *decoded = NULL;
        check(bg_tokenizer_decode(t, ids, n, skip, &decoded, NULL, &err), &err);
        bg_string_free(decoded);
    }
    bg_ids_free(ids);
}

#endif
