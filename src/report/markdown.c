#include "report/formats.h"
#include "report/words.h"

#include <string.h>

static void put_words(bg_text *out, void (*words)(bg_text *, const bg_report_model *),
                      const bg_report_model *model, const char *before, const char *after)
{
    bg_text text = {0};
    words(&text, model);
    if (text.size) {
        bg_text_puts(out, before);
        bg_put_markdown(out, text.data);
        bg_text_puts(out, after);
    }
    out->failed |= text.failed;
    bg_text_free(&text);
}

static void put_table(bg_text *out, const bg_report_model *model, const bg_grid *grid)
{
    bg_text_puts(out, "| precision |");
    for (size_t c = 0; c < grid->n_columns; c++) {
        bg_text_puts(out, " ");
        bg_put_markdown(out, grid->columns[c].group);
        bg_text_puts(out, ": ");
        bg_put_markdown(out, grid->columns[c].title);
        bg_text_puts(out, " |");
    }
    bg_text_puts(out, "\n|:--|");
    for (size_t c = 0; c < grid->n_columns; c++) bg_text_puts(out, "--:|");
    bg_text_puts(out, "\n");
    for (size_t i = 0; i < model->n_rows; i++) {
        bg_text_puts(out, "| ");
        bg_put_markdown(out, model->rows[i].label);
        bg_text_puts(out, model->rows[i].ok ? " |" : " (failed) |");
        for (size_t c = 0; c < grid->n_columns; c++) {
            bg_text_puts(out, " ");
            bg_put_markdown(out, bg_grid_cell(grid, i, c));
            bg_text_puts(out, " |");
        }
        bg_text_puts(out, "\n");
    }
    bg_text_puts(out, "\n");
}

static void put_failures(bg_text *out, const bg_report_model *model)
{
    for (size_t i = 0; i < model->n_rows; i++) {
        if (model->rows[i].ok) continue;
        bg_text_puts(out, "- **");
        bg_put_markdown(out, model->rows[i].label);
        bg_text_puts(out, "** failed: ");
        bg_put_markdown(out, bg_report_reason(&model->rows[i]));
        bg_text_puts(out, "\n");
    }
}

static void put_generations(bg_text *out, const bg_report_model *model)
{
    size_t most = 0;
    for (size_t i = 0; i < model->n_rows; i++) {
        size_t n = json_array_size(bg_report_get(model->rows[i].run, "generations"));
        if (n > most) most = n;
    }
    if (!most) return;
    bg_text_puts(out, "\n### Generated texts\n");
    for (size_t g = 0; g < most; g++) {
        bool first = true;
        for (size_t i = 0; i < model->n_rows; i++) {
            const json_t *all = bg_report_get(model->rows[i].run, "generations");
            const json_t *one = json_array_get(all, g);
            const char *prompt = bg_report_string(one, "prompt");
            const char *text = bg_report_string(one, "text");
            double departs = bg_report_number(one, "first_difference");
            if (!one) continue;
            if (first) {
                bg_text_puts(out, "\n**");
                bg_put_markdown(out, prompt ? prompt : "–");
                bg_text_puts(out, "**\n\n");
            }
            first = false;
            bg_text_puts(out, "- ");
            bg_put_markdown(out, model->rows[i].label);
            if (departs >= 0 && departs < 1e9)
                bg_text_printf(out, " (departs at token %.0f)", departs + 1);
            bg_text_puts(out, ": ");
            bg_put_markdown(out, text ? text : "–");
            bg_text_puts(out, "\n");
        }
    }
}

static bg_status put_model(bg_text *out, const bg_report_model *model, bg_error *err)
{
    bg_grid grid;
    BG_TRY(bg_grid_build(model, &grid, err));
    bg_text_puts(out, "## ");
    bg_put_markdown(out, model->name);
    bg_text_puts(out, "\n\n");
    put_words(out, bg_words_finding, model, "**", "**\n\n");
    put_words(out, bg_words_model, model, "", "\n\n");
    put_table(out, model, &grid);
    put_words(out, bg_words_conditions, model, "", "\n\n");
    put_words(out, bg_words_cautions, model, "", "\n\n");
    put_failures(out, model);
    put_generations(out, model);
    bg_text_puts(out, "\n");
    bg_grid_free(&grid);
    return BG_OK;
}

/* A code block, fenced by more backticks than any run of them inside. */
static void put_code(bg_text *out, const char *code)
{
    size_t fence = 3;
    for (const char *at = code; *at;) {
        size_t run = strspn(at, "`");
        if (run >= fence) fence = run + 1;
        at += run ? run : 1;
    }
    for (size_t i = 0; i < fence; i++) bg_text_puts(out, "`");
    bg_text_puts(out, "\n");
    for (const char *at = code; *at; at++)
        bg_text_append(out, (unsigned char)*at < 0x20 && *at != '\n' ? " " : at, 1);
    bg_text_puts(out, "\n");
    for (size_t i = 0; i < fence; i++) bg_text_puts(out, "`");
    bg_text_puts(out, "\n");
}

bg_status bg_report_markdown(const bg_report_view *view, int width, bg_text *out, bg_error *err)
{
    (void)width;
    const char *command = bg_report_string(view->document, "command");
    const char *created = bg_report_string(view->document, "created");
    bg_text_puts(out, "# bitgauge report\n\n");
    for (size_t i = 0; i < view->n_models; i++) BG_TRY(put_model(out, &view->models[i], err));
    if (!view->n_models) bg_text_puts(out, "No runs.\n\n");

    bg_text machine = {0};
    bg_words_machine(&machine, view->document);
    if (machine.size) {
        bg_text_puts(out, "## Machine\n\n");
        bg_put_markdown(out, machine.data);
        bg_text_puts(out, "\n\n");
    }
    out->failed |= machine.failed;
    bg_text_free(&machine);
    if (command) {
        bg_text_puts(out, "## To repeat it\n\n");
        put_code(out, command);
        bg_text_puts(out, "\n");
    }
    if (created) {
        bg_text_puts(out, "Measured ");
        bg_put_markdown(out, created);
        bg_text_puts(out, ". docs/results.md defines every number.\n");
    }
    return BG_OK;
}
