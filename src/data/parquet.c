/* The columns of a Parquet file: values and levels put together into cells. */
#include "data/parquet.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "data/bits.h"

#include <stdio.h>
#include <string.h>

/* Values that grow. Until all are there, a list's `integer` is the index of its first item. */
typedef struct {
    bg_value *data;
    size_t n, capacity;
} values;

typedef struct {
    const bg_table *table;
    bg_parquet_pages pages;
    bg_pool scratch;
    values found; /* those of a page that are not null */
    /* (max_repetition + 1) the rows, the items of the rows' lists, the items of those ... */
    values levels[BG_PARQUET_DEPTH + 1];
    size_t end; /* of the group's rows */
} assembly;

static bg_status reserve(assembly *a, values *v, size_t capacity, bg_error *err)
{
    if (capacity <= v->capacity) return BG_OK;
    bg_value *more =
        capacity <= a->table->max_values ? bg_realloc_array(v->data, capacity, sizeof *more) : NULL;
    if (!more) return bg_fail_memory(err, capacity * sizeof *more, a->pages.where);
    v->data = more;
    v->capacity = capacity;
    return BG_OK;
}

static bg_status append(assembly *a, unsigned level, bg_value **out, bg_error *err)
{
    values *v = &a->levels[level];
    if (level == 0 ? v->n == a->end : v->n == a->table->max_values)
        return bg_parquet_damaged(a->pages.where, "it has more rows or items than it should", err);
    if (level > 0 && v->n == v->capacity)
        BG_TRY(reserve(a, v, bg_min_size(v->n ? 2 * v->n : 1024, a->table->max_values), err));
    *out = &v->data[v->n++];
    **out = (bg_value){.kind = BG_VALUE_NULL};
    return BG_OK;
}

/* One value, or the lack of one: a new row (repetition 0) or one more item of the list at that
 * depth, and within it new lists as far down as `definition` says that there are any. */
static bg_status place(assembly *a, unsigned repetition, unsigned definition, const bg_value **next,
                       bg_error *err)
{
    const bg_parquet_leaf *leaf = a->pages.leaf;
    bg_value *v;
    if (repetition > leaf->max_repetition || definition > leaf->max_definition)
        return bg_parquet_damaged(a->pages.where, "a value is nested deeper than can be", err);
    if (repetition > 0) {
        const values *above = &a->levels[repetition - 1];
        bg_value *list = above->n ? &above->data[above->n - 1] : NULL;
        if (!list || list->kind != BG_VALUE_LIST || list->size == 0)
            return bg_parquet_damaged(a->pages.where, "an item is in no list", err);
        list->size++;
    }
    BG_TRY(append(a, repetition, &v, err));
    for (unsigned level = repetition; level < leaf->max_repetition; level++) {
        if (definition < leaf->list_definition[level]) return BG_OK;
        bool empty = definition == leaf->list_definition[level];
        *v = (bg_value){
            .kind = BG_VALUE_LIST, .size = !empty, .integer = (int64_t)a->levels[level + 1].n};
        if (empty) return BG_OK;
        BG_TRY(append(a, level + 1, &v, err));
    }
    if (definition == leaf->max_definition) *v = *(*next)++;
    return BG_OK;
}

/* ---- levels ---------------------------------------------------------------------------------- */

enum { BATCH = 1024 };

static unsigned width_of(unsigned most)
{
    unsigned width = 0;
    while (most >> width) width++;
    return width;
}

/* Levels that can only be 0 are not written. */
static bg_rle levels_of(unsigned most, const uint8_t *data, size_t size)
{
    if (most == 0) return (bg_rle){.left = SIZE_MAX};
    return (bg_rle){.at = data, .end = data + size, .width = width_of(most)};
}

static bg_status read_levels(const assembly *a, bg_rle *levels, uint32_t *out, size_t n,
                             bg_error *err)
{
    if (bg_rle_read(levels, out, n)) return BG_OK;
    return bg_parquet_damaged(a->pages.where, "a page ends before its last value", err);
}

static bg_status count_defined(const assembly *a, bg_rle definition, size_t n, size_t *out,
                               bg_error *err)
{
    uint32_t levels[BATCH];
    *out = 0;
    for (size_t i = 0, count; i < n; i += count) {
        count = bg_min_size(n - i, BATCH);
        BG_TRY(read_levels(a, &definition, levels, count, err));
        for (size_t k = 0; k < count; k++) *out += levels[k] == a->pages.leaf->max_definition;
    }
    return BG_OK;
}

static bg_status read_page(assembly *a, size_t most, size_t *n, bg_error *err)
{
    const bg_parquet_leaf *leaf = a->pages.leaf;
    bg_parquet_page page;
    size_t defined;
    BG_TRY(bg_parquet_next_page(&a->pages, &page, err));
    *n = page.n_values;
    if (*n > most)
        return bg_parquet_damaged(a->pages.where, "its pages have more values than it should", err);
    bg_rle repetition = levels_of(leaf->max_repetition, page.repetition, page.repetition_size);
    bg_rle definition = levels_of(leaf->max_definition, page.definition, page.definition_size);
    BG_TRY(count_defined(a, definition, *n, &defined, err));
    BG_TRY(reserve(a, &a->found, defined, err));
    BG_TRY(bg_parquet_values(&a->pages, page.encoding, page.values, page.values_size, a->found.data,
                             defined, err));
    const bg_value *next = a->found.data;
    for (size_t i = 0, count; i < *n; i += count) {
        uint32_t r[BATCH], d[BATCH];
        count = bg_min_size(*n - i, BATCH);
        BG_TRY(read_levels(a, &repetition, r, count, err));
        BG_TRY(read_levels(a, &definition, d, count, err));
        for (size_t k = 0; k < count; k++) BG_TRY(place(a, r[k], d[k], &next, err));
    }
    return BG_OK;
}

/* ---- columns --------------------------------------------------------------------------------- */

static bg_status read_chunk(assembly *a, const bg_parquet_chunk *chunk, size_t n_rows,
                            bg_error *err)
{
    const char *where = a->pages.where;
    if (chunk->codec < 0 || chunk->codec >= BG_CODEC_COUNT)
        return bg_parquet_damaged(where, "its compression is none of Parquet's", err);
    a->pages.codec = (bg_codec)chunk->codec;
    if (!bg_codec_is_known(a->pages.codec))
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: compression with %s is not read; write the file anew with zstd, gzip, "
                       "snappy or none",
                       where, bg_codec_name(a->pages.codec));
    a->pages.at = chunk->data;
    a->pages.end = chunk->data + chunk->size;
    a->pages.n_dictionary = 0;
    a->end = a->levels[0].n + n_rows;
    for (size_t left = chunk->n_values, n; left > 0; left -= n) BG_TRY(read_page(a, left, &n, err));
    if (a->levels[0].n != a->end)
        return bg_parquet_damaged(where, "it has fewer rows than it should", err);
    return BG_OK;
}

/* Moves the items into the table's pool, and lets the lists point to them. */
static bg_status settle(assembly *a, bg_pool *pool, bg_error *err)
{
    for (unsigned level = a->pages.leaf->max_repetition; level > 0; level--) {
        values *items = &a->levels[level], *lists = &a->levels[level - 1];
        void *memory;
        BG_TRY(bg_pool_alloc(pool, items->n, sizeof(bg_value), a->pages.where, &memory, err));
        if (items->n) memcpy(memory, items->data, items->n * sizeof(bg_value));
        for (size_t i = 0; i < lists->n; i++)
            if (lists->data[i].kind == BG_VALUE_LIST)
                lists->data[i].list = (const bg_value *)memory + lists->data[i].integer;
    }
    return BG_OK;
}

static bg_status read_column(assembly *a, bg_table *t, size_t column, bg_error *err)
{
    const bg_parquet *file = t->state;
    if (a->pages.leaf->refused)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: %s is not read; write the column as a number or a string",
                       a->pages.where, a->pages.leaf->refused);
    for (size_t i = 0; i < file->n_groups; i++)
        BG_TRY(read_chunk(a, &file->groups[i].chunks[column], file->groups[i].n_rows, err));
    return settle(a, &t->pool, err);
}

static bg_status load_parquet(bg_table *t, size_t column, bg_value *cells, bg_error *err)
{
    const bg_parquet *file = t->state;
    const char *name = t->columns[column].name;
    size_t size = strlen(t->path) + strlen(name) + sizeof ", column \"\"";
    char *where = bg_alloc(size);
    if (!where) return bg_fail_memory(err, size, t->path);
    snprintf(where, size, "%s, column \"%s\"", t->path, name);
    assembly a = {.table = t, .scratch = {.limit = t->pool.limit}};
    a.pages = (bg_parquet_pages){.leaf = &file->leaves[column], .where = where, .keep = &t->pool};
    a.pages.scratch = &a.scratch;
    a.levels[0] = (values){cells, 0, t->rows};
    bg_status status = read_column(&a, t, column, err);
    for (unsigned level = 1; level <= a.pages.leaf->max_repetition; level++)
        bg_free(a.levels[level].data);
    bg_free(a.found.data);
    bg_free(a.pages.dictionary);
    bg_pool_free(&a.scratch);
    bg_free(where);
    return status;
}

static bg_status open_parquet(bg_table *t, bg_error *err)
{
    void *file;
    BG_TRY(bg_pool_alloc(&t->pool, 1, sizeof(bg_parquet), t->path, &file, err));
    t->state = file;
    return bg_parquet_read_footer(t, file, err);
}

static void close_parquet(bg_table *t)
{
    (void)t;
}

const bg_reader bg_reader_parquet = {open_parquet, load_parquet, close_parquet};
