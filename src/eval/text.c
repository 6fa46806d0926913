#include "eval/text.h"

#include "core/file.h"
#include "data/table.h"

#include <string.h>
#include <strings.h>

static bool is_table(const char *path)
{
    static const char *const endings[] = {".tsv", ".csv", ".json", ".jsonl", ".parquet"};
    size_t n = strlen(path);
    if (n > 3 && strcasecmp(path + n - 3, ".gz") == 0) n -= 3;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t m = strlen(endings[i]);
        if (n > m && strncasecmp(path + n - m, endings[i], m) == 0) return true;
    }
    return false;
}

static void append_lines(bg_text *out, const char *data, size_t size)
{
    for (size_t i = 0; i < size;) {
        const char *end = memchr(data + i, '\r', size - i);
        size_t n = end ? (size_t)(end - data) - i : size - i;
        bg_text_append(out, data + i, n);
        i += n;
        if (!end) break;
        bg_text_puts(out, "\n");
        i += i + 1 < size && data[i + 1] == '\n' ? 2 : 1;
    }
}

static bg_status read_rows(bg_table *table, bg_text *out, bg_error *err)
{
    const bg_column *column;
    BG_TRY(bg_table_column(table, "text", &column, err));
    for (size_t i = 0; i < bg_table_rows(table); i++) {
        const char *row;
        size_t size;
        BG_TRY(bg_column_string(column, i, &row, &size, err));
        if (size == 0) row = " ", size = 1;
        append_lines(out, row, size);
        if (row[size - 1] != '\n' && row[size - 1] != '\r') bg_text_puts(out, "\n");
    }
    return BG_OK;
}

bg_status bg_eval_text_read(const char *path, bg_text *out, bg_error *err)
{
    *out = (bg_text){0};
    bg_status status;
    if (is_table(path)) {
        bg_table *table;
        BG_TRY(bg_table_open(path, &table, err));
        status = read_rows(table, out, err);
        bg_table_close(table);
    } else {
        bg_mapping file;
        BG_TRY(bg_map_file(path, &file, err));
        append_lines(out, (const char *)file.data, file.size);
        status = BG_OK;
        bg_unmap(&file);
    }
    bg_text_append(out, "", 0); /* an empty text is a string, too */
    if (status == BG_OK && out->failed) status = bg_fail_memory(err, out->size, path);
    if (status != BG_OK) bg_text_free(out);
    return status;
}
