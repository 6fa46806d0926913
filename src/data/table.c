#include "data/table.h"

#include "core/alloc.h"
#include "core/text.h"
#include "data/reader.h"
#include "data/unpack.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- which reader ---------------------------------------------------------------------------- */

static bool ends_with(const char *name, size_t n, const char *end)
{
    size_t size = strlen(end);
    return n >= size && strncasecmp(name + n - size, end, size) == 0;
}

static bool begins_with(const bg_table *t, const char *bytes, size_t n)
{
    return t->size >= n && memcmp(t->data, bytes, n) == 0;
}

/* The kind of a file whose name does not tell. */
static const bg_reader *guess(const bg_table *t)
{
    const char *at = t->data, *line;
    size_t size;
    if (!bg_next_line(&at, t->data + t->size, &line, &size)) return &bg_reader_text;
    if (*line == '{') return &bg_reader_json;
    return memchr(line, '\t', size) ? &bg_reader_tsv : &bg_reader_text;
}

static const bg_reader *choose(const bg_table *t)
{
    static const struct {
        const char *extension;
        const bg_reader *reader;
    } kinds[] = {
        {".txt", &bg_reader_text},        {".tsv", &bg_reader_tsv},   {".csv", &bg_reader_csv},
        {".jsonl", &bg_reader_json},      {".json", &bg_reader_json}, {".ndjson", &bg_reader_json},
        {".parquet", &bg_reader_parquet},
    };
    size_t n = strlen(t->path);
    if (begins_with(t, "PAR1", 4)) return &bg_reader_parquet;
    if (ends_with(t->path, n, ".gz")) n -= 3;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (ends_with(t->path, n, kinds[i].extension)) return kinds[i].reader;
    return guess(t);
}

/* ---- opening --------------------------------------------------------------------------------- */

static bg_status unpack(bg_table *t, bg_error *err)
{
    if (begins_with(t, "\x1f\x8b", 2)) {
        BG_TRY(bg_gunzip(&t->pool, t->data, t->size, t->path, &t->data, &t->size, err));
        if (begins_with(t, "PAR1", 4))
            return bg_fail(err, BG_ERR_UNSUPPORTED,
                           "%s: a Parquet file within gzip is not read; unpack it with gunzip",
                           t->path);
    }
    if (begins_with(t, "\xef\xbb\xbf", 3)) {
        t->data += 3;
        t->size -= 3;
    }
    return BG_OK;
}

static bg_status open_table(bg_table *t, const void *data, size_t size, const char *path,
                            bg_error *err)
{
    char *name;
    t->path = path;
    t->data = data;
    t->size = size;
    t->max_values = BG_TABLE_VALUES;
    t->pool.limit = BG_TABLE_MEMORY;
    BG_TRY(bg_pool_copy(&t->pool, path, strlen(path), path, &name, err));
    t->path = name;
    BG_TRY(unpack(t, err));
    t->reader = choose(t);
    return t->reader->open(t, err);
}

bg_status bg_table_open_bytes(const void *data, size_t size, const char *path, bg_table **out,
                              bg_error *err)
{
    bg_table *t = bg_calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return bg_fail_memory(err, sizeof *t, path);
    bg_status status = open_table(t, data, size, path, err);
    if (status == BG_OK)
        *out = t;
    else
        bg_table_close(t);
    return status;
}

bg_status bg_table_open(const char *path, bg_table **out, bg_error *err)
{
    bg_mapping file;
    *out = NULL;
    BG_TRY(bg_map_file(path, &file, err));
    bg_status status = bg_table_open_bytes(file.data, file.size, path, out, err);
    if (status == BG_OK)
        (*out)->file = file;
    else
        bg_unmap(&file);
    return status;
}

void bg_table_close(bg_table *t)
{
    if (!t) return;
    if (t->reader) t->reader->close(t);
    bg_free(t->starts);
    bg_free(t->columns);
    bg_pool_free(&t->pool);
    bg_unmap(&t->file);
    bg_free(t);
}

/* ---- for readers ----------------------------------------------------------------------------- */

bg_status bg_table_add_row(bg_table *t, size_t start, bg_error *err)
{
    if (t->rows == t->max_values)
        return bg_fail(err, BG_ERR_UNSUPPORTED, "%s: more than %zu rows; split the file", t->path,
                       t->max_values);
    if (t->rows == t->starts_capacity) {
        size_t capacity = t->starts_capacity ? 2 * t->starts_capacity : 256;
        size_t *more = bg_realloc_array(t->starts, capacity, sizeof *more);
        if (!more) return bg_fail_memory(err, capacity * sizeof *more, t->path);
        t->starts = more;
        t->starts_capacity = capacity;
    }
    t->starts[t->rows++] = start;
    return BG_OK;
}

bg_status bg_table_add_column(bg_table *t, const char *name, size_t size, bg_error *err)
{
    if (t->n_columns == t->columns_capacity) {
        size_t capacity = t->columns_capacity ? 2 * t->columns_capacity : 16;
        bg_column *more = bg_realloc_array(t->columns, capacity, sizeof *more);
        if (!more) return bg_fail_memory(err, capacity * sizeof *more, t->path);
        t->columns = more;
        t->columns_capacity = capacity;
    }
    char *copy;
    BG_TRY(bg_pool_copy(&t->pool, name, size, t->path, &copy, err));
    t->columns[t->n_columns++] = (bg_column){.table = t, .name = copy};
    return BG_OK;
}

bool bg_next_line(const char **at, const char *end, const char **line, size_t *size)
{
    const char *stop = *at;
    if (stop == end) return false;
    while (stop < end && *stop != '\n' && *stop != '\r') stop++;
    *line = *at;
    *size = (size_t)(stop - *at);
    if (end - stop >= 2 && stop[0] == '\r' && stop[1] == '\n') stop++;
    *at = stop < end ? stop + 1 : end;
    return true;
}

size_t bg_table_line(const bg_table *t, size_t offset)
{
    const char *at = t->data, *line;
    size_t size, number = 0;
    while (at <= t->data + offset && bg_next_line(&at, t->data + t->size, &line, &size)) number++;
    return number ? number : 1;
}

/* ---- columns --------------------------------------------------------------------------------- */

size_t bg_table_rows(const bg_table *table)
{
    return table->rows;
}

size_t bg_table_columns(const bg_table *table)
{
    return table->n_columns;
}

const char *bg_table_column_name(const bg_table *table, size_t index)
{
    return table->columns[index].name;
}

/* How many columns have that name; *index is the first. */
static size_t find(const bg_table *t, const char *name, size_t *index)
{
    size_t n = 0;
    for (size_t i = t->n_columns; i-- > 0;)
        if (strcmp(t->columns[i].name, name) == 0) {
            *index = i;
            n++;
        }
    return n;
}

bool bg_table_has(const bg_table *table, const char *name)
{
    size_t index;
    return find(table, name, &index) > 0;
}

static bg_status no_column(const bg_table *t, const char *name, bg_error *err)
{
    bg_text names = {0};
    for (size_t i = 0; i < t->n_columns && names.size < 400; i++)
        bg_text_printf(&names, "%s\"%s\"", i ? ", " : "", t->columns[i].name);
    bg_status status =
        bg_fail(err, BG_ERR_FORMAT, "%s: there is no column \"%s\"; its columns are %s", t->path,
                name, names.data ? names.data : "none");
    bg_text_free(&names);
    return status;
}

bg_status bg_table_column(bg_table *t, const char *name, const bg_column **out, bg_error *err)
{
    size_t index = 0, n = find(t, name, &index);
    *out = NULL;
    if (n == 0) return no_column(t, name, err);
    if (n > 1)
        return bg_fail(err, BG_ERR_FORMAT, "%s: %zu columns are named \"%s\"; rename one", t->path,
                       n, name);
    bg_column *column = &t->columns[index];
    if (!column->cells) {
        void *cells;
        BG_TRY(bg_pool_alloc(&t->pool, t->rows, sizeof(bg_value), t->path, &cells, err));
        BG_TRY(t->reader->load(t, index, cells, err));
        column->cells = cells;
    }
    *out = column;
    return BG_OK;
}

/* ---- cells ----------------------------------------------------------------------------------- */

bg_status bg_table_fail(const bg_table *t, size_t row, bg_error *err, const char *format, ...)
{
    char message[sizeof((bg_error *)0)->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size_t number = t->starts ? bg_table_line(t, t->starts[row]) : row + 1;
    return bg_fail(err, BG_ERR_FORMAT, "%s, %s %zu: %s", t->path, t->starts ? "line" : "row",
                   number, message);
}

static bg_status wrong(const bg_column *column, size_t row, const char *wanted, bg_error *err)
{
    static const char *const kinds[] = {"nothing",  "a truth value", "a whole number",
                                        "a number", "a string",      "a list"};
    const bg_value *v = &column->cells[row];
    if (v->kind == BG_VALUE_STRING)
        return bg_table_fail(column->table, row, err, "\"%s\" must be %s, but is \"%.*s\"",
                             column->name, wanted, (int)(v->size < 40 ? v->size : 40), v->string);
    return bg_table_fail(column->table, row, err, "\"%s\" must be %s, but is %s", column->name,
                         wanted, kinds[v->kind]);
}

static bool spells(const bg_value *v, const char *word)
{
    return v->size == strlen(word) && strncasecmp(v->string, word, v->size) == 0;
}

static bool spelled_int(const bg_value *v, int64_t *out)
{
    bool negative = v->size && *v->string == '-';
    *out = 0;
    for (size_t i = negative; i < v->size; i++) {
        int digit = v->string[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(*out, 10, out) ||
            __builtin_add_overflow(*out, negative ? -digit : digit, out))
            return false;
    }
    return v->size > negative;
}

static bool spelled_real(const bg_value *v, double *out)
{
    char text[64];
    int used = -1;
    if (v->size == 0 || v->size >= sizeof text || memchr(v->string, '\0', v->size)) return false;
    memcpy(text, v->string, v->size);
    text[v->size] = '\0';
    if (strspn(text, "+-.0123456789eEinfatyINFATY") != v->size) return false;
    return sscanf(text, "%lf%n", out, &used) == 1 && used == (int)v->size;
}

bg_status bg_column_int(const bg_column *column, size_t row, int64_t *out, bg_error *err)
{
    const bg_value *v = &column->cells[row];
    switch (v->kind) {
    case BG_VALUE_INT:
        *out = v->integer;
        return BG_OK;
    case BG_VALUE_BOOL:
        *out = v->boolean;
        return BG_OK;
    case BG_VALUE_STRING:
        if (spelled_int(v, out)) return BG_OK;
        break;
    default:
        break;
    }
    return wrong(column, row, "a whole number", err);
}

bg_status bg_column_real(const bg_column *column, size_t row, double *out, bg_error *err)
{
    const bg_value *v = &column->cells[row];
    switch (v->kind) {
    case BG_VALUE_INT:
        *out = (double)v->integer;
        return BG_OK;
    case BG_VALUE_REAL:
        *out = v->real;
        return BG_OK;
    case BG_VALUE_STRING:
        if (spelled_real(v, out)) return BG_OK;
        break;
    default:
        break;
    }
    return wrong(column, row, "a number", err);
}

bg_status bg_column_bool(const bg_column *column, size_t row, bool *out, bg_error *err)
{
    const bg_value *v = &column->cells[row];
    if (v->kind == BG_VALUE_BOOL) {
        *out = v->boolean;
        return BG_OK;
    }
    bool integer = v->kind == BG_VALUE_INT, string = v->kind == BG_VALUE_STRING;
    *out = integer ? v->integer == 1 : string && (spells(v, "true") || spells(v, "1"));
    if (*out || (integer && v->integer == 0) || (string && (spells(v, "false") || spells(v, "0"))))
        return BG_OK;
    return wrong(column, row, "true or false", err);
}

bg_status bg_column_string(const bg_column *column, size_t row, const char **string, size_t *size,
                           bg_error *err)
{
    const bg_value *v = &column->cells[row];
    if (v->kind != BG_VALUE_STRING) return wrong(column, row, "a string", err);
    *string = v->string;
    *size = v->size;
    return BG_OK;
}

bg_status bg_column_strings(const bg_column *column, size_t row, const bg_value **strings,
                            size_t *n, bg_error *err)
{
    const bg_value *v = &column->cells[row];
    bool good = v->kind == BG_VALUE_LIST;
    for (size_t i = 0; good && i < v->size; i++) good = v->list[i].kind == BG_VALUE_STRING;
    if (!good) return wrong(column, row, "a list of strings", err);
    *strings = v->list;
    *n = v->size;
    return BG_OK;
}
