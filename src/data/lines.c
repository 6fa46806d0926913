/* Plain text, and tab-separated values in which nothing is quoted or escaped. */
#include "data/reader.h"

#include <string.h>

/* ---- text ------------------------------------------------------------------------------------ */

static bg_status add_lines(bg_table *t, const char *at, bool blank, bg_error *err)
{
    const char *line;
    size_t size;
    while (bg_next_line(&at, t->data + t->size, &line, &size))
        if (size || blank) BG_TRY(bg_table_add_row(t, (size_t)(line - t->data), err));
    return BG_OK;
}

static bg_status open_text(bg_table *t, bg_error *err)
{
    BG_TRY(bg_table_add_column(t, "text", strlen("text"), err));
    return add_lines(t, t->data, true, err);
}

static bg_status load_text(bg_table *t, size_t column, bg_value *cells, bg_error *err)
{
    (void)column, (void)err;
    for (size_t i = 0; i < t->rows; i++) {
        const char *at = t->data + t->starts[i];
        cells[i].kind = BG_VALUE_STRING;
        bg_next_line(&at, t->data + t->size, &cells[i].string, &cells[i].size);
    }
    return BG_OK;
}

static void close_lines(bg_table *t)
{
    (void)t;
}

const bg_reader bg_reader_text = {open_text, load_text, close_lines};

/* ---- tab-separated --------------------------------------------------------------------------- */

/* Takes a field off the line [*at, end); false when the last one was taken (*at is NULL then). */
static bool next_field(const char **at, const char *end, const char **field, size_t *size)
{
    if (!*at) return false;
    const char *tab = memchr(*at, '\t', (size_t)(end - *at));
    *field = *at;
    *size = (size_t)((tab ? tab : end) - *at);
    *at = tab ? tab + 1 : NULL;
    return true;
}

static bg_status open_tsv(bg_table *t, bg_error *err)
{
    const char *at = t->data, *line = NULL, *field;
    size_t size = 0;
    bg_next_line(&at, t->data + t->size, &line, &size);
    if (!size)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s, line 1: expected a header with the columns' names, separated by tabs",
                       t->path);
    for (const char *from = line, *end = line + size; next_field(&from, end, &field, &size);)
        BG_TRY(bg_table_add_column(t, field, size, err));
    return add_lines(t, at, false, err);
}

static bg_status load_tsv(bg_table *t, size_t column, bg_value *cells, bg_error *err)
{
    for (size_t i = 0; i < t->rows; i++) {
        const char *at = t->data + t->starts[i], *line = NULL, *field;
        size_t size = 0, n = 0;
        bg_next_line(&at, t->data + t->size, &line, &size);
        for (const char *from = line, *end = line + size; next_field(&from, end, &field, &size);)
            if (n++ == column)
                cells[i] = (bg_value){.kind = BG_VALUE_STRING, .size = size, .string = field};
        if (n != t->n_columns)
            return bg_table_fail(t, i, err,
                                 "%zu fields, but the header names %zu, separated by tabs; correct "
                                 "the line",
                                 n, t->n_columns);
    }
    return BG_OK;
}

const bg_reader bg_reader_tsv = {open_tsv, load_tsv, close_lines};
