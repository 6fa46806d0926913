/* Comma-separated values (RFC 4180). A field that begins with a quotation mark ends with one, and
 * may hold commas, line ends, and quotation marks written twice. Elsewhere a quotation mark is a
 * character like any other. Lines end with "\r\n", "\n" or "\r"; empty ones between records are
 * skipped. */
#include "data/reader.h"

#include <string.h>

typedef struct {
    const char *data;
    size_t size;
    size_t doubled; /* quotation marks written twice, in data once as "" */
} field;

typedef enum { FIELD, LAST_FIELD, UNTERMINATED, AFTER_QUOTE } outcome;

/* Takes a field off [*at, end), and the comma or line end behind it. */
static outcome next_field(const char **at, const char *end, field *out)
{
    const char *p = *at;
    if (p < end && *p == '"') {
        *out = (field){.data = ++p};
        for (;; p += 2, out->doubled++) {
            p = memchr(p, '"', (size_t)(end - p));
            if (!p) return UNTERMINATED;
            if (p + 1 == end || p[1] != '"') break;
        }
        out->size = (size_t)(p++ - out->data);
    } else {
        *out = (field){.data = p};
        while (p < end && *p != ',' && *p != '\n' && *p != '\r') p++;
        out->size = (size_t)(p - out->data);
    }
    *at = p < end ? p + 1 : end;
    if (p == end || *p == '\n') return LAST_FIELD;
    if (*p == ',') return FIELD;
    if (*p != '\r') return AFTER_QUOTE;
    if (*at < end && **at == '\n') ++*at;
    return LAST_FIELD;
}

static const char *skip_empty_lines(const char *at, const char *end)
{
    while (at < end && (*at == '\n' || *at == '\r')) at++;
    return at;
}

static bg_status broken(const bg_table *t, const char *from, outcome what, bg_error *err)
{
    return bg_fail(err, BG_ERR_FORMAT, "%s, line %zu: %s; correct the file", t->path,
                   bg_table_line(t, (size_t)(from - t->data)),
                   what == UNTERMINATED
                       ? "a quotation mark opens a field here, and none closes it"
                       : "a field that begins here goes on after its closing quotation mark");
}

static bg_status unquote(bg_table *t, const field *f, const char **string, size_t *size,
                         bg_error *err)
{
    *string = f->data;
    *size = f->size - f->doubled;
    if (!f->doubled) return BG_OK;
    void *memory;
    BG_TRY(bg_pool_alloc(&t->pool, *size, 1, t->path, &memory, err));
    char *to = memory;
    for (size_t i = 0; i < f->size; i++) {
        *to++ = f->data[i];
        if (f->data[i] == '"') i++;
    }
    *string = memory;
    return BG_OK;
}

static bg_status read_header(bg_table *t, const char **at, bg_error *err)
{
    const char *end = t->data + t->size, *name;
    size_t size;
    field f;
    outcome last = FIELD;
    *at = skip_empty_lines(t->data, end);
    if (*at == end)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s, line 1: expected a header with the columns' names, separated by commas",
                       t->path);
    while (last == FIELD) {
        const char *from = *at;
        last = next_field(at, end, &f);
        if (last > LAST_FIELD) return broken(t, from, last, err);
        BG_TRY(unquote(t, &f, &name, &size, err));
        BG_TRY(bg_table_add_column(t, name, size, err));
    }
    return BG_OK;
}

static bg_status open_csv(bg_table *t, bg_error *err)
{
    const char *end = t->data + t->size, *at;
    field f;
    BG_TRY(read_header(t, &at, err));
    while ((at = skip_empty_lines(at, end)) < end) {
        BG_TRY(bg_table_add_row(t, (size_t)(at - t->data), err));
        size_t n = 0;
        for (outcome last = FIELD; last == FIELD; n++) {
            const char *from = at;
            last = next_field(&at, end, &f);
            if (last > LAST_FIELD) return broken(t, from, last, err);
        }
        if (n != t->n_columns)
            return bg_table_fail(t, t->rows - 1, err,
                                 "%zu fields, but the header names %zu, separated by commas; "
                                 "correct the file",
                                 n, t->n_columns);
    }
    return BG_OK;
}

static bg_status load_csv(bg_table *t, size_t column, bg_value *cells, bg_error *err)
{
    for (size_t i = 0; i < t->rows; i++) {
        const char *at = t->data + t->starts[i];
        field f;
        for (size_t n = 0; n <= column; n++) next_field(&at, t->data + t->size, &f);
        cells[i].kind = BG_VALUE_STRING;
        BG_TRY(unquote(t, &f, &cells[i].string, &cells[i].size, err));
    }
    return BG_OK;
}

static void close_csv(bg_table *t)
{
    (void)t;
}

const bg_reader bg_reader_csv = {open_csv, load_csv, close_csv};
