#include "tokenizer/trie.h"

#include "core/alloc.h"

#include <stdbool.h>

void bg_trie_free(bg_trie *trie)
{
    bg_free(trie->edges);
    bg_free(trie->ids);
    *trie = (bg_trie){0};
}

static void put(bg_trie_edge *edges, size_t slots, bg_trie_edge edge)
{
    uint64_t hash = edge.key * 0x9E3779B97F4A7C15u;
    size_t slot = (size_t)(hash >> 32) & (slots - 1);
    while (edges[slot].child) slot = (slot + 1) & (slots - 1);
    edges[slot] = edge;
}

/* Twice the slots. */
static bool grow(bg_trie *trie)
{
    size_t slots = trie->slots * 2;
    bg_trie_edge *edges = bg_calloc(slots, sizeof *edges);
    if (!edges) return false;
    for (size_t i = 0; i < trie->slots; i++)
        if (trie->edges[i].child) put(edges, slots, trie->edges[i]);
    bg_free(trie->edges);
    trie->edges = edges;
    trie->slots = slots;
    return true;
}

/* A new node after `node` along `byte`; 0 when out of memory. */
static uint32_t add_node(bg_trie *trie, uint32_t node, uint8_t byte)
{
    uint32_t child = (uint32_t)trie->nodes;
    if (trie->nodes > trie->slots / 3 * 2 && !grow(trie)) return 0;
    if (trie->nodes == trie->capacity) {
        size_t capacity = trie->capacity + trie->capacity / 2;
        int32_t *ids = bg_realloc_array(trie->ids, capacity, sizeof *ids);
        if (!ids) return 0;
        trie->ids = ids;
        trie->capacity = capacity;
    }
    put(trie->edges, trie->slots,
        (bg_trie_edge){.key = (uint64_t)node << 8 | byte, .child = child});
    if (!node) trie->first[byte] = child;
    trie->ids[trie->nodes++] = -1;
    return child;
}

bg_status bg_trie_build(const bg_vocab *vocab, bg_trie *out, bg_error *err)
{
    enum { START = 1 << 10 };
    *out = (bg_trie){.slots = START, .capacity = START, .nodes = 1};
    out->edges = bg_calloc(START, sizeof *out->edges);
    out->ids = bg_alloc_array(START, sizeof *out->ids);
    bool complete = out->edges && out->ids;
    if (complete) out->ids[0] = -1;
    for (size_t e = 0; complete && e < vocab->n; e++) {
        const bg_vocab_entry *entry = &vocab->entries[e];
        uint32_t node = 0;
        for (uint32_t i = 0; complete && i < entry->size; i++) {
            uint8_t byte = (uint8_t)vocab->bytes[entry->offset + i];
            uint32_t child = bg_trie_next(out, node, byte);
            if (!child) child = add_node(out, node, byte);
            complete = child != 0;
            node = child;
        }
        if (node) out->ids[node] = entry->id; /* an empty token is never found */
    }
    if (complete) return BG_OK;
    bg_trie_free(out);
    return bg_fail_memory(err, vocab->bytes_size * sizeof *out->edges,
                          "the tokens of a vocabulary");
}
