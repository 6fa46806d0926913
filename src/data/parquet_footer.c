/* The end of a Parquet file: its schema, a tree of fields written down in depth-first order, and
 * the place of each leaf's pages in each group of rows. */
#include "core/checked.h"
#include "core/text.h"
#include "data/bits.h"
#include "data/parquet.h"
#include "data/thrift.h"

#include <string.h>

/* ---- the structs of parquet.thrift ----------------------------------------------------------- */

typedef struct {
    bg_thrift_list schema, groups;
    int64_t n_rows;
    bool encrypted;
} file_metadata;

static const bg_thrift_field file_metadata_fields[] = {
    {2, BG_THRIFT_LIST, offsetof(file_metadata, schema), NULL},
    {3, BG_THRIFT_INT, offsetof(file_metadata, n_rows), NULL},
    {4, BG_THRIFT_LIST, offsetof(file_metadata, groups), NULL},
    {8, BG_THRIFT_PRESENT, offsetof(file_metadata, encrypted), NULL},
    {0},
};

typedef struct {
    int64_t type, repetition, n_children, converted;
    bg_thrift_string name;
    bool is_map, is_list, is_decimal;
} element;

static const bg_thrift_field logical_fields[] = {
    {2, BG_THRIFT_PRESENT, offsetof(element, is_map), NULL},
    {3, BG_THRIFT_PRESENT, offsetof(element, is_list), NULL},
    {5, BG_THRIFT_PRESENT, offsetof(element, is_decimal), NULL},
    {0},
};

static const bg_thrift_field element_fields[] = {
    {1, BG_THRIFT_INT, offsetof(element, type), NULL},
    {3, BG_THRIFT_INT, offsetof(element, repetition), NULL},
    {4, BG_THRIFT_STRING, offsetof(element, name), NULL},
    {5, BG_THRIFT_INT, offsetof(element, n_children), NULL},
    {6, BG_THRIFT_INT, offsetof(element, converted), NULL},
    {10, BG_THRIFT_STRUCT, 0, logical_fields},
    {0},
};

enum { REQUIRED, OPTIONAL, REPEATED };
enum {
    CONVERTED_MAP = 1,
    CONVERTED_MAP_KEY_VALUE = 2,
    CONVERTED_LIST = 3,
    CONVERTED_DECIMAL = 5,
    CONVERTED_UINT_32 = 13,
    CONVERTED_UINT_64 = 14,
};

typedef struct {
    bg_thrift_list columns;
    int64_t n_rows;
} row_group;

static const bg_thrift_field row_group_fields[] = {
    {1, BG_THRIFT_LIST, offsetof(row_group, columns), NULL},
    {3, BG_THRIFT_INT, offsetof(row_group, n_rows), NULL},
    {0},
};

typedef struct {
    bool elsewhere;
    int64_t type, codec, n_values, size, data_offset, dictionary_offset;
} column_chunk;

static const bg_thrift_field column_metadata_fields[] = {
    {1, BG_THRIFT_INT, offsetof(column_chunk, type), NULL},
    {4, BG_THRIFT_INT, offsetof(column_chunk, codec), NULL},
    {5, BG_THRIFT_INT, offsetof(column_chunk, n_values), NULL},
    {7, BG_THRIFT_INT, offsetof(column_chunk, size), NULL},
    {9, BG_THRIFT_INT, offsetof(column_chunk, data_offset), NULL},
    {11, BG_THRIFT_INT, offsetof(column_chunk, dictionary_offset), NULL},
    {0},
};

static const bg_thrift_field column_chunk_fields[] = {
    {1, BG_THRIFT_PRESENT, offsetof(column_chunk, elsewhere), NULL},
    {3, BG_THRIFT_STRUCT, 0, column_metadata_fields},
    {0},
};

bg_status bg_parquet_damaged(const char *where, const char *what, bg_error *err)
{
    return bg_fail(err, BG_ERR_FORMAT, "%s: %s; the file is damaged, download it again", where,
                   what);
}

/* ---- the schema ------------------------------------------------------------------------------ */

/* How a field's place in the schema shows in the names of the columns below it. A list is a group
 * of a repeated group of the items; only the outer one was named by whoever made the data. */
typedef enum { NAMED, LIST_REPEATED, LIST_ITEM, MAP_REPEATED } place;

typedef struct {
    bg_table *table;
    bg_parquet *out;
    bg_thrift_list rest;
    bg_text path;
} schema;

static bool name_is(bg_thrift_string name, const char *wanted)
{
    return name.size == strlen(wanted) && memcmp(name.data, wanted, name.size) == 0;
}

static bool ends_in_tuple(bg_thrift_string name)
{
    return name.size >= 6 && memcmp(name.data + name.size - 6, "_tuple", 6) == 0;
}

/* Where a field's children stand. The rules for the repeated group of a list are those of
 * LogicalTypes.md, older writers' forms included. */
static place place_of_children(const element *e, place at)
{
    if (e->is_list || e->converted == CONVERTED_LIST)
        return e->n_children == 1 ? LIST_REPEATED : NAMED;
    if (e->is_map || e->converted == CONVERTED_MAP || e->converted == CONVERTED_MAP_KEY_VALUE)
        return at == MAP_REPEATED ? NAMED : MAP_REPEATED;
    if (at == LIST_REPEATED && e->n_children == 1 && !name_is(e->name, "array") &&
        !ends_in_tuple(e->name))
        return LIST_ITEM;
    return NAMED;
}

static const char *refused(const element *e)
{
    if (e->type == BG_PARQUET_INT96) return "the type INT96";
    if (e->type == BG_PARQUET_FIXED_LEN_BYTE_ARRAY) return "the type FIXED_LEN_BYTE_ARRAY";
    if (e->converted == CONVERTED_DECIMAL || e->is_decimal) return "the type DECIMAL";
    return NULL;
}

static bg_status add_leaf(schema *s, const element *e, bg_parquet_leaf *leaf, bg_error *err)
{
    const char *where = s->table->path;
    if (e->type < 0 || e->type >= BG_PARQUET_TYPES)
        return bg_parquet_damaged(where, "a column's type is none of Parquet's", err);
    leaf->type = (bg_parquet_type)e->type;
    leaf->is_unsigned = e->converted == CONVERTED_UINT_32 || e->converted == CONVERTED_UINT_64;
    leaf->refused = refused(e);
    s->out->leaves[s->out->n_leaves++] = *leaf;
    return bg_table_add_column(s->table, s->path.size ? s->path.data : "", s->path.size, err);
}

/* Reads the field that comes next and all below it. `above` is what its parent adds up to. */
static bg_status read_field(schema *s, bg_parquet_leaf above, place at, int depth, bg_error *err)
{
    const char *where = s->table->path;
    element e = {.type = -1, .converted = -1};
    if (s->rest.n == 0 || !bg_thrift_read(&s->rest.items, element_fields, &e) || !e.name.data)
        return bg_parquet_damaged(where, "its schema cannot be read", err);
    s->rest.n--;
    if (depth == BG_PARQUET_DEPTH)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: its columns are nested deeper than %d groups; flatten them", where,
                       BG_PARQUET_DEPTH);
    size_t mark = s->path.size;
    bool hidden = at != NAMED && (at == LIST_ITEM || e.repetition == REPEATED);
    if (!hidden) {
        if (mark) bg_text_append(&s->path, ".", 1);
        bg_text_append(&s->path, e.name.data, e.name.size);
        if (s->path.failed) return bg_fail_memory(err, e.name.size, where);
    }
    if (e.repetition == REPEATED)
        above.list_definition[above.max_repetition++] = above.max_definition;
    if (e.repetition != REQUIRED) above.max_definition++;
    if (e.n_children == 0 && e.type >= 0) BG_TRY(add_leaf(s, &e, &above, err));
    for (int64_t i = 0; i < e.n_children; i++)
        BG_TRY(read_field(s, above, place_of_children(&e, at), depth + 1, err));
    s->path.size = mark;
    return BG_OK;
}

static bg_status read_schema(bg_table *t, bg_thrift_list list, bg_parquet *out, bg_error *err)
{
    schema s = {.table = t, .out = out, .rest = list};
    element root = {0};
    void *leaves;
    if (list.n == 0 || !bg_thrift_read(&s.rest.items, element_fields, &root))
        return bg_parquet_damaged(t->path, "its schema cannot be read", err);
    s.rest.n--;
    BG_TRY(bg_pool_alloc(&t->pool, list.n, sizeof(bg_parquet_leaf), t->path, &leaves, err));
    out->leaves = leaves;
    bg_status status = BG_OK;
    for (int64_t i = 0; status == BG_OK && i < root.n_children; i++)
        status = read_field(&s, (bg_parquet_leaf){0}, NAMED, 0, err);
    bg_text_free(&s.path);
    return status;
}

/* ---- the groups of rows ---------------------------------------------------------------------- */

static bg_status read_chunk(const bg_table *t, bg_thrift *in, size_t data_end,
                            const bg_parquet_leaf *leaf, bg_parquet_chunk *out, bg_error *err)
{
    column_chunk c = {.type = -1};
    if (!bg_thrift_read(in, column_chunk_fields, &c))
        return bg_parquet_damaged(t->path, "the description of a column cannot be read", err);
    if (c.elsewhere)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: its columns are in other files, which is not read", t->path);
    int64_t start = c.data_offset, end;
    if (c.dictionary_offset > 0 && c.dictionary_offset < start) start = c.dictionary_offset;
    if (start < 0 || c.size < 0 || __builtin_add_overflow(start, c.size, &end) ||
        (size_t)end > data_end || c.n_values < 0 || c.type != (int64_t)leaf->type)
        return bg_parquet_damaged(t->path, "the description of a column makes no sense", err);
    if ((size_t)c.n_values > t->max_values)
        return bg_fail(err, BG_ERR_UNSUPPORTED, "%s: more than %zu values; split the file", t->path,
                       t->max_values);
    *out = (bg_parquet_chunk){(const uint8_t *)t->data + start, (size_t)c.size, c.codec,
                              (size_t)c.n_values};
    return BG_OK;
}

static bg_status read_group(bg_table *t, bg_thrift *in, size_t data_end, const bg_parquet *file,
                            bg_parquet_group *out, bg_error *err)
{
    row_group g = {0};
    void *chunks;
    if (!bg_thrift_read(in, row_group_fields, &g) || g.n_rows < 0 || g.columns.n != file->n_leaves)
        return bg_parquet_damaged(t->path, "the description of a group of rows makes no sense",
                                  err);
    BG_TRY(
        bg_pool_alloc(&t->pool, file->n_leaves, sizeof(bg_parquet_chunk), t->path, &chunks, err));
    *out = (bg_parquet_group){(size_t)g.n_rows, chunks};
    for (size_t i = 0; i < file->n_leaves; i++)
        BG_TRY(read_chunk(t, &g.columns.items, data_end, &file->leaves[i], &out->chunks[i], err));
    return BG_OK;
}

static bg_status read_groups(bg_table *t, bg_thrift_list list, int64_t n_rows, size_t data_end,
                             bg_parquet *out, bg_error *err)
{
    void *groups;
    size_t rows = 0;
    BG_TRY(bg_pool_alloc(&t->pool, list.n, sizeof(bg_parquet_group), t->path, &groups, err));
    out->groups = groups;
    for (size_t i = 0; i < list.n; i++) {
        bg_parquet_group *g = &out->groups[out->n_groups++];
        BG_TRY(read_group(t, &list.items, data_end, out, g, err));
        if (!bg_add_size(rows, g->n_rows, &rows)) rows = SIZE_MAX;
    }
    if (n_rows < 0 || rows != (size_t)n_rows)
        return bg_parquet_damaged(t->path, "its groups do not add up to its number of rows", err);
    if (rows > t->max_values)
        return bg_fail(err, BG_ERR_UNSUPPORTED, "%s: more than %zu rows; split the file", t->path,
                       t->max_values);
    t->rows = rows;
    return BG_OK;
}

bg_status bg_parquet_read_footer(bg_table *t, bg_parquet *out, bg_error *err)
{
    enum { MAGIC = 4, TAIL = 8 };
    const uint8_t *data = (const uint8_t *)t->data;
    *out = (bg_parquet){0};
    if (t->size < MAGIC + TAIL || memcmp(data, "PAR1", MAGIC) ||
        memcmp(data + t->size - MAGIC, "PAR1", MAGIC))
        return bg_fail(
            err, BG_ERR_FORMAT,
            "%s: a Parquet file begins and ends with \"PAR1\", and this one does not: it "
            "is cut short, encrypted, or something else; download it again",
            t->path);
    const uint8_t *tail = data + t->size - TAIL;
    size_t size = bg_read_u32(tail);
    if (size > t->size - MAGIC - TAIL)
        return bg_parquet_damaged(t->path, "its footer is longer than the file", err);
    file_metadata m = {0};
    bg_thrift in = {tail - size, tail};
    if (!bg_thrift_read(&in, file_metadata_fields, &m))
        return bg_parquet_damaged(t->path, "its footer cannot be read", err);
    if (m.encrypted)
        return bg_fail(err, BG_ERR_UNSUPPORTED, "%s: an encrypted Parquet file is not read",
                       t->path);
    BG_TRY(read_schema(t, m.schema, out, err));
    return read_groups(t, m.groups, m.n_rows, t->size - TAIL - size, out, err);
}
