#include "bench/remedy.h"

#include "core/text.h"
#include "model/model.h"

/* "0.8 GiB", or in MiB what is less than one. */
static void put_amount(bg_text *out, double bytes)
{
    const double gib = bytes / (1 << 30);
    bg_text_printf(out, "%.1f %s", gib >= 1 ? gib : gib * 1024, gib >= 1 ? "GiB" : "MiB");
}

/* "; use a lower precision: the weights take about 1.3 GiB at int8, 0.8 GiB at nf4": those that
 * fit, and of several that take about as much, the first. */
static void put_precisions(bg_text *out, const bg_shortage *s)
{
    const char *smallest = s->precision->name;
    const double mine = (double)bg_model_estimate(s->config, s->precision);
    double last = mine;
    bool any = false;
    for (int i = 0; i < BG_FORMAT_COUNT; i++) {
        const double bytes = (double)bg_model_estimate(s->config, &bg_formats[i]);
        if (bytes > 0.85 * last) continue;
        last = bytes;
        smallest = bg_formats[i].name;
        if (s->room >= 0 && bytes > s->room) continue;
        bg_text_puts(out, any ? ", " : "a lower precision: the weights take about ");
        put_amount(out, bytes);
        bg_text_printf(out, " at %s", smallest);
        any = true;
    }
    if (any && s->room < 0) {
        bg_text_puts(out, " instead of ");
        put_amount(out, mine);
    }
    if (any) return;
    bg_text_puts(out, "a smaller model, a larger GPU or --device cpu");
    if (s->room < 0) return;
    bg_text_puts(out, ": even the ");
    put_amount(out, last);
    bg_text_printf(out, " that %s takes are too much", smallest);
}

void bg_explain_shortage(const bg_shortage *s, bg_error *err)
{
    bg_text text = {0};
    bg_text_puts(&text, "use ");
    if (s->options) bg_text_puts(&text, s->options);
    if (s->fitting_batch > 0) bg_text_printf(&text, " (a batch of %d fits)", s->fitting_batch);
    if (s->options) bg_text_puts(&text, ", or ");
    put_precisions(&text, s);
    if (!text.failed) {
        const bg_error before = *err;
        bg_fail(err, before.status, "%.600s; %.400s", before.message, text.data);
    }
    bg_text_free(&text);
}
