/* What the kinds of data files have in common, behind table.h. A reader finds the rows and columns
 * of an open file, and makes one column's cells at a time. */
#ifndef BG_DATA_READER_H
#define BG_DATA_READER_H

#include "core/file.h"
#include "core/pool.h"
#include "data/table.h"

/* Bytes that a table may hold in memory beside its file, and the most rows or list items of one
 * column. */
#define BG_TABLE_MEMORY ((size_t)4 << 30)
#define BG_TABLE_VALUES ((size_t)1 << 27)

typedef struct {
    bg_status (*open)(bg_table *table, bg_error *err);
    /* Fills cells (rows), which are all null. */
    bg_status (*load)(bg_table *table, size_t column, bg_value *cells, bg_error *err);
    void (*close)(bg_table *table); /* after a failed open, too */
} bg_reader;

extern const bg_reader bg_reader_text, bg_reader_tsv, bg_reader_csv, bg_reader_json,
    bg_reader_parquet;

struct bg_table {
    const char *path;
    const bg_reader *reader;
    void *state;      /* the reader's own */
    const char *data; /* (size) the file, unpacked; the text kinds: without byte order mark */
    size_t size;
    size_t rows;
    size_t *starts; /* (rows) where each row begins in data; NULL if rows are not lines */
    size_t starts_capacity;
    bg_column *columns; /* (n_columns); cells are NULL until they are loaded */
    size_t n_columns, columns_capacity;
    size_t max_values; /* BG_TABLE_VALUES */
    bg_pool pool;      /* names, cells, and what they point to that is not in data */
    bg_mapping file;
};

/* As bg_table_open, for bytes in memory that must outlive the table. */
bg_status bg_table_open_bytes(const void *data, size_t size, const char *path, bg_table **out,
                              bg_error *err);

/* For readers: one more row, which begins at `start`; one more column, whose name is copied. */
bg_status bg_table_add_row(bg_table *table, size_t start, bg_error *err);
bg_status bg_table_add_column(bg_table *table, const char *name, size_t size, bg_error *err);

/* The number, from 1, of the line that holds the byte at `offset`. */
size_t bg_table_line(const bg_table *table, size_t offset);

/* Takes a line off [*at, end): its bytes without the line end ("\n", "\r\n" or "\r"). False at the
 * end. */
bool bg_next_line(const char **at, const char *end, const char **line, size_t *size);

#endif
