#include "backend/cuda/arena.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <stdint.h>

static size_t rounded(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

/* A new piece for `bytes`; NULL where there is none. */
static cuda_piece *add_piece(cuda_arena *arena, const cuda_arena_source *source, size_t bytes)
{
    if (arena->n == arena->capacity) {
        const size_t capacity = arena->capacity ? 2 * arena->capacity : 16;
        cuda_piece *pieces = bg_realloc_array(arena->pieces, capacity, sizeof *pieces);
        if (!pieces) return NULL;
        arena->pieces = pieces;
        arena->capacity = capacity;
    }
    const size_t least = rounded(bytes, CUDA_ARENA_PIECE);
    if (arena->expected > SIZE_MAX / 2) arena->expected = 0;
    size_t size = bg_max_size(least, rounded(arena->expected, CUDA_ARENA_PIECE));
    void *base = source->take(source->context, size);
    /* There may be room for this one, but not for all. */
    if (!base && size > least) {
        arena->expected = 0;
        base = source->take(source->context, size = least);
    }
    if (!base) return NULL;
    arena->expected -= bg_min_size(arena->expected, size);
    arena->pieces[arena->n] = (cuda_piece){.base = base, .size = size};
    return &arena->pieces[arena->n++];
}

void *cuda_arena_take(cuda_arena *arena, const cuda_arena_source *source, size_t bytes)
{
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = rounded(bytes > 0 ? bytes : 1, CUDA_ARENA_ALIGN);
    cuda_piece *piece = NULL;
    for (size_t i = 0; !piece && i < arena->n; i++)
        if (arena->pieces[i].size - arena->pieces[i].used >= bytes) piece = &arena->pieces[i];
    if (!piece) piece = add_piece(arena, source, bytes);
    if (!piece) return NULL;
    void *p = piece->base + piece->used;
    piece->used += bytes;
    piece->live += bytes;
    return p;
}

void cuda_arena_give(cuda_arena *arena, const cuda_arena_source *source, void *p, size_t bytes)
{
    bytes = rounded(bytes > 0 ? bytes : 1, CUDA_ARENA_ALIGN);
    for (size_t i = 0; i < arena->n; i++) {
        cuda_piece *piece = &arena->pieces[i];
        if ((char *)p < piece->base || (char *)p >= piece->base + piece->size) continue;
        if ((char *)p + bytes == piece->base + piece->used) piece->used -= bytes;
        piece->live -= bytes;
        if (piece->live > 0) return;
        source->give(source->context, piece->base);
        *piece = arena->pieces[--arena->n];
        return;
    }
}

void cuda_arena_free(cuda_arena *arena)
{
    bg_free(arena->pieces);
    *arena = (cuda_arena){0};
}
