/* Parquet files, as far as table.h needs them: the footer, which says where everything is, the
 * pages of a column, and the values in a page. https://parquet.apache.org/docs/file-format/ and
 * parquet.thrift beside it */
#ifndef BG_DATA_PARQUET_H
#define BG_DATA_PARQUET_H

#include "data/reader.h"
#include "data/unpack.h"

enum { BG_PARQUET_DEPTH = 32 }; /* groups within groups */

/* Numbered as in the file. */
typedef enum {
    BG_PARQUET_BOOLEAN,
    BG_PARQUET_INT32,
    BG_PARQUET_INT64,
    BG_PARQUET_INT96,
    BG_PARQUET_FLOAT,
    BG_PARQUET_DOUBLE,
    BG_PARQUET_BYTE_ARRAY,
    BG_PARQUET_FIXED_LEN_BYTE_ARRAY,
    BG_PARQUET_TYPES,
} bg_parquet_type;

/* A column of the table: a leaf of the file's schema. For each value the file has a definition
 * level, how many of the optional and repeated fields on the way to it are there, and a repetition
 * level, the depth of the list that it is one more item of (0: it begins a row). */
typedef struct {
    bg_parquet_type type;
    bool is_unsigned;
    const char *refused; /* the name of what is not read about it, or NULL */
    unsigned max_definition, max_repetition;
    /* (max_repetition) the definition level at which the list at that depth is there, but empty */
    unsigned list_definition[BG_PARQUET_DEPTH];
} bg_parquet_leaf;

/* The pages of one leaf for the rows of one group. */
typedef struct {
    const uint8_t *data;
    size_t size;
    int64_t codec;
    size_t n_values; /* nulls and empty lists count */
} bg_parquet_chunk;

typedef struct {
    size_t n_rows;
    bg_parquet_chunk *chunks; /* (n_leaves) */
} bg_parquet_group;

/* Lives in the table's pool; the leaves are the table's columns. */
typedef struct {
    bg_parquet_leaf *leaves;
    size_t n_leaves;
    bg_parquet_group *groups;
    size_t n_groups;
} bg_parquet;

/* Reads the footer, and adds the columns to the table. */
bg_status bg_parquet_read_footer(bg_table *table, bg_parquet *out, bg_error *err);

/* ---- pages ----------------------------------------------------------------------------------- */

/* A page of data, unpacked. */
typedef struct {
    size_t n_values;
    const uint8_t *repetition, *definition; /* levels, run-length encoded */
    size_t repetition_size, definition_size;
    int64_t encoding;
    const uint8_t *values; /* those that are not null */
    size_t values_size;
} bg_parquet_page;

/* Goes through the pages of a chunk. */
typedef struct {
    const bg_parquet_leaf *leaf;
    const char *where; /* "FILE, column \"NAME\"", for errors */
    const uint8_t *at, *end;
    bg_codec codec;
    bg_pool *keep;        /* what string values point to; lives as long as the table */
    bg_pool *scratch;     /* everything else; freed for each page */
    bg_value *dictionary; /* (n_dictionary) in scratch memory of its own */
    size_t n_dictionary, dictionary_capacity;
} bg_parquet_pages;

/* The next page of data, after any dictionary, which is taken in on the way. */
bg_status bg_parquet_next_page(bg_parquet_pages *pages, bg_parquet_page *out, bg_error *err);

/* ---- values ---------------------------------------------------------------------------------- */

/* Reads the n values of a page, which has that encoding and is `size` bytes long. */
bg_status bg_parquet_values(const bg_parquet_pages *pages, int64_t encoding, const uint8_t *data,
                            size_t size, bg_value *out, size_t n, bg_error *err);
/* Whether values in that encoding point into the page that they are read from. */
bool bg_parquet_in_place(const bg_parquet_leaf *leaf, int64_t encoding);

bg_status bg_parquet_damaged(const char *where, const char *what, bg_error *err);

#endif
