/* Generated texts side by side. A text is plain as far as it says what the baseline's says, and
 * marked from the word in which it departs; precisions that say the same share one card. */
#include "report/format.h"
#include "report/html.h"

#include <math.h>
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

/* Where `text` first says something else than `base`: the start of that word. */
static size_t departure(const char *text, const char *base)
{
    size_t n = 0;
    while (text[n] && text[n] == base[n]) n++;
    while (n && (((unsigned char)text[n] & 0xC0) == 0x80 || text[n - 1] != ' ')) n--;
    return n;
}

static const bg_report_row *baseline_of(const bg_report_model *model)
{
    for (size_t i = 0; i < model->n_rows; i++)
        if (model->rows[i].baseline) return &model->rows[i];
    return NULL;
}

static bool same(const bg_report_row *row, const bg_report_row *base, size_t g)
{
    return isnan(bg_report_number(generation(row, g), "first_difference")) &&
           strcmp(text_of(row, g), text_of(base, g)) == 0;
}

/* The text without the spaces around it; white space inside stays. */
static void put_text(bg_text *out, const char *text, size_t n)
{
    while (n && (*text == ' ' || *text == '\n')) {
        text++;
        n--;
    }
    bg_put_html_n(out, text, n);
}

static void put_where(bg_text *out, const json_t *one)
{
    double at = bg_report_number(one, "first_difference");
    size_t of = json_array_size(bg_report_get(one, "token_ids"));
    const char *finish = bg_report_string(one, "finish");
    bg_text_puts(out, "<span>");
    if (at >= 0 && at < 1e9) {
        bg_text_printf(out, "departs at token %.0f", at + 1);
        if (of) bg_text_printf(out, " of %zu", of);
    } else if (of) {
        bg_text_printf(out, "%zu tokens", of);
    }
    if (finish && strcmp(finish, "eos") == 0) bg_text_puts(out, ", ended by itself");
    bg_text_puts(out, "</span>");
}

static void put_card(bg_text *out, const bg_report_model *model, const bg_report_row *row,
                     const bg_report_row *base, size_t g)
{
    const char *text = text_of(row, g);
    bg_text_puts(out, "<div class=\"text\"><p class=\"who\">");
    bg_put_html(out, row->label);
    for (size_t i = 0; row == base && i < model->n_rows; i++) {
        const bg_report_row *other = &model->rows[i];
        if (other == base || !generation(other, g) || !same(other, base, g)) continue;
        bg_text_puts(out, ", ");
        bg_put_html(out, other->label);
    }
    put_where(out, generation(row, g));
    bg_text_puts(out, "</p><p>");
    size_t split = base && row != base ? departure(text, text_of(base, g)) : strlen(text);
    put_text(out, text, split);
    if (text[split]) {
        bg_text_puts(out, "<mark>");
        put_text(out, text + split, strlen(text) - split);
        bg_text_puts(out, "</mark>");
    }
    bg_text_puts(out, "</p></div>\n");
}

static const char *prompt_of(const bg_report_model *model, size_t g)
{
    for (size_t i = 0; i < model->n_rows; i++) {
        const char *prompt = bg_report_string(generation(&model->rows[i], g), "prompt");
        if (prompt) return prompt;
    }
    return "–";
}

void bg_html_texts(bg_text *out, const bg_report_model *model)
{
    const bg_report_row *base = baseline_of(model);
    size_t most = 0;
    for (size_t i = 0; i < model->n_rows; i++) {
        size_t n = json_array_size(bg_report_get(model->rows[i].run, "generations"));
        if (model->rows[i].ok && n > most) most = n;
    }
    if (!most) return;
    bg_text_puts(out, "<h3>Generated texts</h3>\n");
    if (base) {
        bg_text_puts(out, "<p class=\"notes\">Precisions named together wrote the same tokens. "
                          "Elsewhere <mark>marked</mark> is what comes after the first departure "
                          "from ");
        bg_put_html(out, base->label);
        bg_text_puts(out, ".</p>\n");
    }
    for (size_t g = 0; g < most; g++) {
        bg_text_puts(out, "<h4>“");
        bg_put_html(out, prompt_of(model, g));
        bg_text_puts(out, " …”</h4>\n<div class=\"texts\">\n");
        if (base && generation(base, g)) put_card(out, model, base, base, g);
        for (size_t i = 0; i < model->n_rows; i++) {
            const bg_report_row *row = &model->rows[i];
            if (row == base || !generation(row, g)) continue;
            if (base && generation(base, g) && same(row, base, g)) continue;
            put_card(out, model, row, base && generation(base, g) ? base : NULL, g);
        }
        bg_text_puts(out, "</div>\n");
    }
}
