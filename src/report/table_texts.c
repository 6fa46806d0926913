/* Generated texts on a terminal: each prompt, and what the precisions wrote after it; those that
 * wrote the same share an entry. */
#include "report/formats.h"

#include <string.h>

static const json_t *generation(const bg_report_row *row, size_t g)
{
    return row->ok ? json_array_get(bg_report_get(row->run, "generations"), g) : NULL;
}

static const char *text_of(const bg_report_row *row, size_t g)
{
    const char *text = bg_report_string(generation(row, g), "text");
    return text ? text : "";
}

/* Whether nothing else was measured: beside speed and quality, texts would be a flood. */
static bool texts_alone(const bg_report_model *model)
{
    static const char *const others[] = {"decode", "prefill", "perplexity", "accuracy", "tasks"};
    for (size_t i = 0; i < model->n_rows; i++)
        for (size_t k = 0; k < sizeof others / sizeof *others; k++)
            if (bg_report_get(model->rows[i].run, others[k])) return false;
    return true;
}

/* The labels of the rows from `first` on that wrote the same as it; false where an earlier row did,
 * or the row wrote nothing. */
static bool labels(const bg_report_model *model, size_t first, size_t g, bg_text *out)
{
    const char *text = text_of(&model->rows[first], g);
    if (!generation(&model->rows[first], g)) return false;
    for (size_t i = 0; i < model->n_rows; i++) {
        if (!generation(&model->rows[i], g) || strcmp(text_of(&model->rows[i], g), text) != 0)
            continue;
        if (i < first) return false;
        if (out->size) bg_text_puts(out, ", ");
        bg_text_puts(out, model->rows[i].label);
    }
    return true;
}

/* A title in so many columns, then a text, wrapped and indented; line by line, as it was written.
 */
static void put_entry(bg_text *out, const char *title, const char *text, size_t width)
{
    enum { INDENT = 2 };
    bg_put_terminal(out, title, width);
    bg_text_puts(out, "\n");
    while (*text == '\n') text++;
    while (*text) {
        const char *end = strchr(text, '\n');
        size_t n = end ? (size_t)(end - text) : strlen(text);
        bg_text line = {0};
        bg_text_append(&line, text, n);
        bg_text_puts(out, "  ");
        if (n && !line.failed) bg_put_wrapped(out, line.data, INDENT, INDENT, width);
        bg_text_puts(out, "\n");
        out->failed |= line.failed;
        bg_text_free(&line);
        text += n + (end != NULL);
    }
}

void bg_table_texts(bg_text *out, const bg_report_model *model, size_t width)
{
    if (!texts_alone(model)) return;
    for (size_t g = 0;; g++) {
        bool any = false;
        for (size_t i = 0; i < model->n_rows; i++) {
            bg_text title = {0};
            if (labels(model, i, g, &title)) {
                const char *prompt = bg_report_string(generation(&model->rows[i], g), "prompt");
                if (!any) put_entry(out, "Prompt", prompt ? prompt : "", width);
                any = true;
                put_entry(out, title.data, text_of(&model->rows[i], g), width);
            }
            out->failed |= title.failed;
            bg_text_free(&title);
        }
        if (!any) return;
        bg_text_puts(out, "\n");
    }
}
