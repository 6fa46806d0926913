/* Any bytes as a data file of each kind: refused with a message, or a table every byte of which can
 * be read. Since random bytes seldom end in a Parquet footer, they are also read as such a footer,
 * and as the pages of a column. */
#include "data/parquet.h"
#include "data/reader.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) abort();                                                                 \
    } while (0)

/* A page of a few bytes may stand for as many values as there are numbers. */
enum { MAX_VALUES = 1 << 16, MAX_MEMORY = 256 << 20 };

static void check_error(bg_status status, const bg_error *err)
{
    REQUIRE(status == BG_ERR_FORMAT || status == BG_ERR_UNSUPPORTED);
    REQUIRE(err->status == status && strncmp(err->message, "fuzz", 4) == 0);
}

static unsigned check_value(const bg_value *v)
{
    unsigned sum = v->kind;
    REQUIRE(v->kind <= BG_VALUE_LIST);
    if (v->kind == BG_VALUE_STRING)
        for (size_t i = 0; i < v->size; i++) sum += (unsigned char)v->string[i];
    if (v->kind == BG_VALUE_LIST)
        for (size_t i = 0; i < v->size; i++) sum += check_value(&v->list[i]);
    return sum;
}

static void check_columns(bg_table *t)
{
    bg_error err = {0};
    unsigned sum = 0;
    t->max_values = MAX_VALUES;
    t->pool.limit = MAX_MEMORY;
    if (bg_table_rows(t) > MAX_VALUES) return;
    for (size_t c = 0; c < bg_table_columns(t) && c < 16; c++) {
        const bg_column *column;
        bg_status status = bg_table_column(t, bg_table_column_name(t, c), &column, &err);
        if (status != BG_OK)
            check_error(status, &err);
        else
            for (size_t i = 0; i < bg_table_rows(t); i++) sum += check_value(&column->cells[i]);
    }
    static volatile unsigned sink;
    sink = sum;
    (void)sink;
}

static void check_file(const void *data, size_t size, const char *name)
{
    bg_table *t;
    bg_error err = {0};
    bg_status status = bg_table_open_bytes(data, size, name, &t, &err);
    if (status != BG_OK)
        check_error(status, &err);
    else
        check_columns(t);
    bg_table_close(t);
}

static void check_footer(const uint8_t *footer, size_t size)
{
    uint8_t *file = malloc(size + 12);
    REQUIRE(file);
    memcpy(file, "PAR1", 4);
    memcpy(file + 4, footer, size);
    for (int i = 0; i < 4; i++) file[4 + size + (size_t)i] = (uint8_t)(size >> 8 * i);
    memcpy(file + 8 + size, "PAR1", 4);
    check_file(file, size + 12, "fuzz");
    free(file);
}

/* The first bytes say what the column is. */
static void check_pages(const uint8_t *data, size_t size)
{
    enum { CHOICES = 4 };
    if (size < CHOICES) return;
    static const bg_codec codecs[] = {BG_CODEC_NONE, BG_CODEC_NONE, BG_CODEC_SNAPPY, BG_CODEC_GZIP,
                                      BG_CODEC_ZSTD};
    bg_parquet_leaf leaf = {
        .type = data[0] % BG_PARQUET_TYPES,
        .max_definition = data[1] % 8,
        .max_repetition = data[1] / 8 % 3,
        .list_definition = {1, 3},
        .is_unsigned = data[1] >= 128,
    };
    /* the footer's reader lets no such column through */
    if (leaf.type == BG_PARQUET_INT96 || leaf.type == BG_PARQUET_FIXED_LEN_BYTE_ARRAY) return;
    bg_parquet_chunk chunk = {data + CHOICES, size - CHOICES,
                              codecs[data[2] % (sizeof codecs / sizeof *codecs)], data[3]};
    bg_parquet_group group = {data[3], &chunk};
    bg_parquet file = {&leaf, 1, &group, 1};
    bg_column column = {.name = "c"};
    bg_table t = {.path = "fuzz",
                  .reader = &bg_reader_parquet,
                  .state = &file,
                  .rows = group.n_rows,
                  .columns = &column,
                  .n_columns = 1};
    check_columns(&t);
    bg_pool_free(&t.pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_file(data, size, "fuzz");
    if (size >= 4 && memcmp(data, "PAR1", 4) == 0) return 0;
    check_file(data, size, "fuzz.csv");
    check_file(data, size, "fuzz.tsv");
    check_file(data, size, "fuzz.jsonl");
    check_footer(data, size);
    check_pages(data, size);
    return 0;
}
