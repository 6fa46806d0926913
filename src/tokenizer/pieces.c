#include "tokenizer/pieces.h"

#include "core/alloc.h"

/* Grows an array by half, at least to 64 items; NULL (and the array as it was) on failure. */
static void *grow(void *items, size_t *capacity, size_t item_size)
{
    size_t wanted = *capacity < 64 ? 64 : *capacity + *capacity / 2;
    void *grown = bg_realloc_array(items, wanted, item_size);
    if (grown) *capacity = wanted;
    return grown;
}

void bg_pieces_push(bg_pieces *pieces, int32_t id)
{
    if (pieces->n == pieces->capacity) {
        bg_piece *items = grow(pieces->items, &pieces->capacity, sizeof *items);
        if (!items) {
            pieces->failed = true;
            return;
        }
        pieces->items = items;
    }
    pieces->items[pieces->n++] =
        (bg_piece){.begin = pieces->begin, .end = pieces->text.size, .id = id};
    pieces->begin = pieces->text.size;
}

void bg_pieces_cut(bg_pieces *pieces)
{
    if (pieces->text.size > pieces->begin) bg_pieces_push(pieces, -1);
}

void bg_pieces_add(bg_pieces *pieces, const char *bytes, size_t n)
{
    bg_text_append(&pieces->text, bytes, n);
    bg_pieces_cut(pieces);
}

void bg_pieces_clear(bg_pieces *pieces)
{
    pieces->text.size = pieces->n = pieces->begin = 0;
}

void bg_pieces_free(bg_pieces *pieces)
{
    bg_text_free(&pieces->text);
    bg_free(pieces->items);
    *pieces = (bg_pieces){0};
}

bg_status bg_pieces_check(const bg_pieces *pieces, bg_error *err)
{
    if (!pieces->failed && !pieces->text.failed) return BG_OK;
    return bg_fail_memory(err, pieces->text.capacity + pieces->capacity * sizeof *pieces->items,
                          "the pieces of a text being tokenized");
}

void bg_ids_push(bg_ids *ids, int32_t id)
{
    if (ids->n == ids->capacity) {
        int32_t *data = grow(ids->data, &ids->capacity, sizeof *data);
        if (!data) {
            ids->failed = true;
            return;
        }
        ids->data = data;
    }
    ids->data[ids->n++] = id;
}

bg_status bg_ids_check(const bg_ids *ids, bg_error *err)
{
    if (!ids->failed) return BG_OK;
    return bg_fail_memory(err, ids->capacity * sizeof *ids->data, "token ids");
}

void bg_matches_push(bg_matches *matches, size_t begin, size_t end, bool match)
{
    if (matches->n == matches->capacity) {
        bg_match *data = grow(matches->data, &matches->capacity, sizeof *data);
        if (!data) {
            matches->failed = true;
            return;
        }
        matches->data = data;
    }
    matches->data[matches->n++] = (bg_match){.begin = begin, .end = end, .match = match};
}

void bg_matches_free(bg_matches *matches)
{
    bg_free(matches->data);
    *matches = (bg_matches){0};
}
