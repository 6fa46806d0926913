#include "tokenizer/trie.h"

#include "core/alloc.h"

void bg_trie_free(bg_trie *trie)
{
    bg_free(trie->edges);
    bg_free(trie->ids);
    *trie = (bg_trie){0};
}

static void add_edge(bg_trie *trie, uint32_t node, uint8_t byte, uint32_t child)
{
    uint64_t key = (uint64_t)node << 8 | byte, hash = key * 0x9E3779B97F4A7C15u;
    size_t slot = (size_t)(hash >> 32) & (trie->slots - 1);
    if (!node) trie->first[byte] = child;
    while (trie->edges[slot].child) slot = (slot + 1) & (trie->slots - 1);
    trie->edges[slot] = (bg_trie_edge){.key = key, .child = child};
}

bg_status bg_trie_build(const bg_vocab *vocab, bg_trie *out, bg_error *err)
{
    /* No more nodes than bytes, which are fewer than 2^32. */
    size_t capacity = vocab->bytes_size + 1, slots = 16;
    while (slots < capacity * 2) slots *= 2;
    *out = (bg_trie){.slots = slots, .nodes = 1};
    out->edges = bg_calloc(slots, sizeof *out->edges);
    out->ids = bg_alloc_array(capacity, sizeof *out->ids);
    if (!out->edges || !out->ids) {
        bg_trie_free(out);
        return bg_fail_memory(err, slots * sizeof *out->edges, "the tokens of a vocabulary");
    }
    out->ids[0] = -1;
    for (size_t e = 0; e < vocab->n; e++) {
        const bg_vocab_entry *entry = &vocab->entries[e];
        uint32_t node = 0;
        for (uint32_t i = 0; i < entry->size; i++) {
            uint8_t byte = (uint8_t)vocab->bytes[entry->offset + i];
            uint32_t child = bg_trie_next(out, node, byte);
            if (!child) {
                child = (uint32_t)out->nodes++;
                out->ids[child] = -1;
                add_edge(out, node, byte, child);
            }
            node = child;
        }
        if (node) out->ids[node] = entry->id; /* an empty token is never found */
    }
    return BG_OK;
}
