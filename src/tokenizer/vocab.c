#include "tokenizer/vocab.h"

#include "core/alloc.h"

#include <string.h>

uint64_t bg_hash_bytes(const char *bytes, size_t size)
{
    const uint64_t prime = 0x9E3779B97F4A7C15u;
    uint64_t hash = size * prime, word;
    for (; size >= 8; bytes += 8, size -= 8) {
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * prime;
        hash ^= hash >> 29;
    }
    word = 0;
    memcpy(&word, bytes, size);
    hash = (hash ^ word) * prime;
    hash ^= hash >> 32;
    hash *= prime;
    return hash ^ hash >> 29;
}

bg_status bg_vocab_reserve(bg_vocab *vocab, size_t count, size_t bytes, int32_t max_id,
                           bg_error *err)
{
    size_t slots = 16;
    while (slots < count * 2) slots *= 2;
    vocab->bytes_capacity = bytes + count;
    vocab->capacity = count;
    vocab->id_count = max_id < 0 ? 0 : (size_t)max_id + 1;
    vocab->slot_count = slots;
    vocab->bytes = vocab->bytes_capacity < UINT32_MAX ? bg_alloc(vocab->bytes_capacity) : NULL;
    vocab->entries = bg_alloc_array(count, sizeof *vocab->entries);
    vocab->slots = bg_calloc(slots, sizeof *vocab->slots);
    vocab->by_id = bg_calloc(vocab->id_count, sizeof *vocab->by_id);
    if (vocab->bytes && vocab->entries && vocab->slots && vocab->by_id) return BG_OK;
    return bg_fail_memory(err, bytes + count * 32 + vocab->id_count * 4, "a vocabulary");
}

/* The slot where a token is, or where it would go. */
static size_t slot_of(const bg_vocab *vocab, const char *token, size_t size)
{
    size_t mask = vocab->slot_count - 1;
    size_t slot = (size_t)bg_hash_bytes(token, size) & mask;
    for (; vocab->slots[slot]; slot = (slot + 1) & mask) {
        const bg_vocab_entry *e = &vocab->entries[vocab->slots[slot] - 1];
        if (e->size == size && memcmp(vocab->bytes + e->offset, token, size) == 0) break;
    }
    return slot;
}

void bg_vocab_add(bg_vocab *vocab, const char *token, size_t size, int32_t id)
{
    size_t slot = slot_of(vocab, token, size), e;
    if (vocab->slots[slot]) {
        e = vocab->slots[slot] - 1;
        vocab->entries[e].id = id;
    } else {
        e = vocab->n++;
        vocab->entries[e] = (bg_vocab_entry){
            .offset = (uint32_t)vocab->bytes_size, .size = (uint32_t)size, .id = id};
        memcpy(vocab->bytes + vocab->bytes_size, token, size);
        vocab->bytes[vocab->bytes_size + size] = '\0';
        vocab->bytes_size += size + 1;
        vocab->slots[slot] = (uint32_t)e + 1;
        if (size > vocab->longest) vocab->longest = size;
    }
    vocab->by_id[id] = (uint32_t)e + 1;
}

void bg_vocab_free(bg_vocab *vocab)
{
    bg_free(vocab->bytes);
    bg_free(vocab->entries);
    bg_free(vocab->slots);
    bg_free(vocab->by_id);
    *vocab = (bg_vocab){0};
}

int32_t bg_vocab_find(const bg_vocab *vocab, const char *token, size_t size)
{
    if (!vocab->n) return -1;
    uint32_t entry = vocab->slots[slot_of(vocab, token, size)];
    return entry ? vocab->entries[entry - 1].id : -1;
}

const bg_vocab_entry *bg_vocab_entry_of(const bg_vocab *vocab, int32_t id)
{
    if (id < 0 || (size_t)id >= vocab->id_count || !vocab->by_id[id]) return NULL;
    return &vocab->entries[vocab->by_id[id] - 1];
}
