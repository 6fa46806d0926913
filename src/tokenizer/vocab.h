/* A vocabulary: tokens and their ids, both ways. */
#ifndef BG_TOKENIZER_VOCAB_H
#define BG_TOKENIZER_VOCAB_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

/* Ids are below this; real vocabularies have up to a few hundred thousand. */
enum { BG_MAX_TOKEN_ID = 1 << 24 };

typedef struct {
    uint32_t offset, size; /* in `bytes`; each token is followed by a NUL */
    int32_t id;
} bg_vocab_entry;

/* Start from {0}. */
typedef struct {
    char *bytes; /* owned; the tokens one after another */
    size_t bytes_size, bytes_capacity;
    bg_vocab_entry *entries; /* (n) in the order added */
    size_t n, capacity;
    uint32_t *slots; /* (slot_count), a power of two: entry number + 1, hashed by token */
    size_t slot_count;
    uint32_t *by_id; /* (id_count): entry number + 1 */
    size_t id_count; /* largest id + 1 */
    size_t longest;  /* bytes of the longest token */
} bg_vocab;

/* Makes room for `count` tokens of `bytes` bytes altogether and ids up to max_id. Call once. */
bg_status bg_vocab_reserve(bg_vocab *vocab, size_t count, size_t bytes, int32_t max_id,
                           bg_error *err);
/* Adds a token within what was reserved. A token that is there gets the new id, an id that is there
 * the new token: the last one counts, both ways. */
void bg_vocab_add(bg_vocab *vocab, const char *token, size_t size, int32_t id);
void bg_vocab_free(bg_vocab *vocab);

/* The id of a token, or -1. */
int32_t bg_vocab_find(const bg_vocab *vocab, const char *token, size_t size);
/* The entry of an id, or NULL. */
const bg_vocab_entry *bg_vocab_entry_of(const bg_vocab *vocab, int32_t id);

uint64_t bg_hash_bytes(const char *bytes, size_t size);

#endif
