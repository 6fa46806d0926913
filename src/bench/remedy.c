#include "bench/remedy.h"

#include "core/text.h"
#include "model/model.h"

/* "; use a lower precision: the weights take about 1.3 GiB at int8, 0.8 GiB at nf4": those that
 * fit, and of several that take about as much, the first. */
static void put_precisions(bg_text *out, const bg_shortage *s)
{
    const char *smallest = s->precision->name;
    char amount[BG_AMOUNT];
    const double mine = (double)bg_model_estimate(s->config, s->precision);
    double last = mine;
    bool any = false;
    for (int i = 0; i < BG_FORMAT_COUNT; i++) {
        const double bytes = (double)bg_model_estimate(s->config, &bg_formats[i]);
        if (bytes > 0.85 * last) continue;
        last = bytes;
        smallest = bg_formats[i].name;
        if (s->room >= 0 && bytes > s->room) continue;
        bg_text_printf(out, "%s%s at %s", any ? ", " : "a lower precision: the weights take about ",
                       bg_amount(amount, bytes), smallest);
        any = true;
    }
    if (any && s->room < 0) bg_text_printf(out, " instead of %s", bg_amount(amount, mine));
    if (any) return;
    bg_text_puts(out, "a smaller model, a larger GPU or --device cpu");
    if (s->room >= 0)
        bg_text_printf(out, ": even the %s that %s takes are too much", bg_amount(amount, last),
                       smallest);
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
