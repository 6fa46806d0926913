/* Data files as one thing: rows with named columns. What is read, and exactly how, is in
 * docs/data.md:
 *   .txt                   one column, "text"; a row for each line
 *   .tsv                   a header line; tabs apart; nothing is quoted or escaped
 *   .csv                   a header line; RFC 4180
 *   .jsonl .json .ndjson   an object for each line, or one array of objects
 *   .parquet               the subset that the Hub's files use
 * The text kinds may be compressed with gzip, with ".gz" after their name. Parquet and gzip are
 * known by their first bytes, whatever the name. Where the name says nothing, a file that begins
 * with '{' is JSON, one with a tab in its first line is .tsv, and any other is plain text.
 *
 * What lies in objects or structs is a column of its own, named by the path: "choices.text". Where
 * the path leads through a list, the column's cells are lists: the objects of a list become a list
 * for each of their keys.
 *
 * Opening finds the rows and the names. A column's cells are made when it is first asked for, and
 * live until the table is closed. Bytes of text are handed out as they are: invalid UTF-8 is left
 * to whoever reads it. One thread at a time. */
#ifndef BG_DATA_TABLE_H
#define BG_DATA_TABLE_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bg_table bg_table;

typedef enum {
    BG_VALUE_NULL, /* absent, null */
    BG_VALUE_BOOL,
    BG_VALUE_INT,
    BG_VALUE_REAL,
    BG_VALUE_STRING, /* every cell of .txt, .tsv and .csv */
    BG_VALUE_LIST,
} bg_value_kind;

typedef struct bg_value {
    bg_value_kind kind;
    size_t size; /* string: bytes; list: items */
    union {
        bool boolean;
        int64_t integer;
        double real;
        const char *string; /* not NUL-terminated; may hold NUL */
        const struct bg_value *list;
    };
} bg_value;

typedef struct {
    const bg_table *table;
    const char *name;      /* "choices.text" */
    const bg_value *cells; /* (rows) */
} bg_column;

/* Opens the file at `path`. Errors name the file, and the line where there is one. */
bg_status bg_table_open(const char *path, bg_table **out, bg_error *err);
void bg_table_close(bg_table *table); /* NULL is fine */

size_t bg_table_rows(const bg_table *table);
size_t bg_table_columns(const bg_table *table);
/* The name of a column, in the file's order. */
const char *bg_table_column_name(const bg_table *table, size_t index);
bool bg_table_has(const bg_table *table, const char *name);

/* The column of that name; *out is borrowed from the table. A name that is not there, or there
 * twice, is an error that lists the names that are. */
bg_status bg_table_column(bg_table *table, const char *name, const bg_column **out, bg_error *err);

/* One cell (row < rows) as the type that is wanted; whatever else is in it, null included, is an
 * error that names file, line or row, and column. A string that spells a number or a truth value
 * counts as one, since .csv and .tsv hold nothing else:
 *   int: whole numbers, true and false as 1 and 0
 *   real: numbers
 *   bool: true and false in upper or lower case, 1 and 0 */
bg_status bg_column_int(const bg_column *column, size_t row, int64_t *out, bg_error *err);
bg_status bg_column_real(const bg_column *column, size_t row, double *out, bg_error *err);
bg_status bg_column_bool(const bg_column *column, size_t row, bool *out, bg_error *err);
bg_status bg_column_string(const bg_column *column, size_t row, const char **string, size_t *size,
                           bg_error *err);
/* A list whose items are all strings: (*strings)[i].string and .size. */
bg_status bg_column_strings(const bg_column *column, size_t row, const bg_value **strings,
                            size_t *n, bg_error *err);

/* bg_fail with "FILE, line N: " (or "row N", counted from 1, where there are no lines) in front. */
bg_status bg_table_fail(const bg_table *table, size_t row, bg_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
