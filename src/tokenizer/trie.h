/* A trie over the tokens of a vocabulary: which tokens does a text begin with? */
#ifndef BG_TOKENIZER_TRIE_H
#define BG_TOKENIZER_TRIE_H

#include "tokenizer/vocab.h"

/* The way from a node along a byte. */
typedef struct {
    uint64_t key;   /* node << 8 | byte */
    uint32_t child; /* 0: the slot is free */
} bg_trie_edge;

/* Node 0 is the root. Start from {0}. */
typedef struct {
    bg_trie_edge *edges; /* (slots), a power of two, open addressing */
    size_t slots;
    int32_t *ids; /* (nodes) the token that ends at a node, -1 where none does */
    size_t nodes, capacity;
    uint32_t first[256]; /* children of the root */
} bg_trie;

bg_status bg_trie_build(const bg_vocab *vocab, bg_trie *out, bg_error *err);
void bg_trie_free(bg_trie *trie);

/* The node after `byte`, or 0. */
static inline uint32_t bg_trie_next(const bg_trie *trie, uint32_t node, uint8_t byte)
{
    if (!node) return trie->first[byte];
    uint64_t key = (uint64_t)node << 8 | byte, hash = key * 0x9E3779B97F4A7C15u;
    size_t slot = (size_t)(hash >> 32) & (trie->slots - 1);
    while (trie->edges[slot].child && trie->edges[slot].key != key)
        slot = (slot + 1) & (trie->slots - 1);
    return trie->edges[slot].child;
}

#endif
