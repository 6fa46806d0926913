#include "eval/dataset.h"

#include "core/alloc.h"

#include <string.h>

typedef struct {
    const char *text;
    size_t size;
} field;

/* The field of a line in some column; false where the line has no such column. */
static bool column(const char *line, size_t size, size_t index, field *out)
{
    for (;; index--) {
        const char *tab = memchr(line, '\t', size);
        size_t n = tab ? (size_t)(tab - line) : size;
        if (index == 0) {
            *out = (field){line, n};
            return true;
        }
        if (!tab) return false;
        line += n + 1;
        size -= n + 1;
    }
}

static bool equals(field f, const char *text)
{
    return f.size == strlen(text) && memcmp(f.text, text, f.size) == 0;
}

static bool parse_label(field f, int32_t *label)
{
    int64_t value = 0;
    if (f.size == 0 || f.size > 6) return false;
    for (size_t i = 0; i < f.size; i++) {
        if (f.text[i] < '0' || f.text[i] > '9') return false;
        value = 10 * value + (f.text[i] - '0');
    }
    *label = (int32_t)value;
    return true;
}

static bg_status parse(bg_dataset *d, int64_t limit, bg_error *err)
{
    const char *path = d->file.path, *at = (const char *)d->file.data;
    const char *end = at + d->file.size;
    size_t sentence = SIZE_MAX, label = SIZE_MAX, capacity = 0;
    for (size_t number = 1; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((newline ? newline : end) - at);
        const char *line = at;
        at = newline ? newline + 1 : end;
        if (size && line[size - 1] == '\r') size--;
        field f, text;
        if (number == 1) {
            for (size_t i = 0; column(line, size, i, &f); i++) {
                if (equals(f, "sentence")) sentence = i;
                if (equals(f, "label")) label = i;
            }
            if (sentence == SIZE_MAX || label == SIZE_MAX)
                return bg_fail(err, BG_ERR_FORMAT,
                               "%s, line 1: the header must name the columns \"sentence\" and "
                               "\"label\", separated by a tab",
                               path);
            continue;
        }
        if (size == 0) continue;
        if (limit > 0 && d->n == (size_t)limit) break;
        int32_t value;
        if (!column(line, size, sentence, &text) || !column(line, size, label, &f) ||
            !parse_label(f, &value))
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s, line %zu: expected a sentence and a label that is a whole number, "
                           "separated by a tab",
                           path, number);
        if (d->n == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            bg_example *more = bg_realloc_array(d->examples, capacity, sizeof *more);
            if (!more) return bg_fail_memory(err, capacity * sizeof *more, path);
            d->examples = more;
        }
        d->examples[d->n++] = (bg_example){text.text, text.size, value};
    }
    if (d->n == 0)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: there is no labelled sentence in it; give a file with a header and at "
                       "least one line",
                       path);
    return BG_OK;
}

bg_status bg_dataset_open(const char *path, int64_t limit, bg_dataset *out, bg_error *err)
{
    *out = (bg_dataset){0};
    BG_TRY(bg_map_file(path, &out->file, err));
    bg_status status = parse(out, limit, err);
    if (status != BG_OK) bg_dataset_close(out);
    return status;
}

void bg_dataset_close(bg_dataset *dataset)
{
    bg_free(dataset->examples);
    bg_unmap(&dataset->file);
    *dataset = (bg_dataset){0};
}
