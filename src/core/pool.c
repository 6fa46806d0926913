#include "core/pool.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <stdalign.h>
#include <stdint.h>
#include <string.h>

struct bg_pool_block {
    struct bg_pool_block *previous;
    size_t used, capacity;
    alignas(max_align_t) unsigned char data[];
};

enum { BLOCK = 64 * 1024, ALIGNMENT = alignof(max_align_t) };

static bg_status add_block(bg_pool *pool, size_t bytes, const char *what,
                           struct bg_pool_block **out, bg_error *err)
{
    size_t capacity = bg_max_size(bytes, BLOCK), total;
    if (!bg_add_size(pool->total, capacity, &total) || total > pool->limit)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: its values take more than %zu MiB of memory; split the file", what,
                       pool->limit >> 20);
    struct bg_pool_block *block =
        capacity < SIZE_MAX - sizeof *block ? bg_calloc(1, sizeof *block + capacity) : NULL;
    if (!block) return bg_fail_memory(err, capacity, what);
    block->previous = pool->last;
    block->capacity = capacity;
    *out = block;
    /* The room left in the block in use is worth more than a large block that is full at once. */
    if (pool->last && bytes >= BLOCK) {
        block->previous = pool->last->previous;
        pool->last->previous = block;
    } else {
        pool->last = block;
    }
    pool->total = total;
    return BG_OK;
}

bg_status bg_pool_alloc(bg_pool *pool, size_t count, size_t size, const char *what, void **out,
                        bg_error *err)
{
    size_t bytes;
    if (!bg_mul_size(count, size, &bytes) || bytes > SIZE_MAX - ALIGNMENT) bytes = SIZE_MAX / 2;
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct bg_pool_block *block = pool->last;
    if (!block || block->capacity - block->used < bytes)
        BG_TRY(add_block(pool, bytes, what, &block, err));
    *out = block->data + block->used;
    block->used += bytes;
    return BG_OK;
}

bg_status bg_pool_copy(bg_pool *pool, const char *bytes, size_t n, const char *what, char **out,
                       bg_error *err)
{
    void *copy;
    BG_TRY(bg_pool_alloc(pool, n < SIZE_MAX ? n + 1 : n, 1, what, &copy, err));
    *out = memcpy(copy, bytes, n);
    (*out)[n] = '\0';
    return BG_OK;
}

void bg_pool_free(bg_pool *pool)
{
    while (pool->last) {
        struct bg_pool_block *previous = pool->last->previous;
        bg_free(pool->last);
        pool->last = previous;
    }
    pool->total = 0;
}
