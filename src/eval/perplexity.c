#include "eval/perplexity.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "core/clock.h"
#include "eval/text.h"
#include "eval/words.h"
#include "tokenizer/tokenizer.h"

#include <math.h>
#include <string.h>

enum {
    SHORT_LINE = 20,   /* a line counts when more characters than this are left of it */
    UNTIMED_PASSES = 3 /* a GPU's first ones load kernels, choose products and make graphs */
};

const char *bg_protocol_name(bg_protocol protocol)
{
    return protocol == BG_PROTOCOL_LINES     ? "lines"
           : protocol == BG_PROTOCOL_SLIDING ? "sliding"
                                             : "chunks";
}

/* Windows are gathered until a pass is full, and then scored together. */
typedef struct {
    bg_run *run;
    size_t max_rows, max_windows;
    int32_t *ids;           /* (max_rows) */
    bg_sequence *sequences; /* (max_windows) */
    size_t n_rows, n_windows;
    size_t *rows;     /* (max_rows) those that predict a token that counts */
    int32_t *targets; /* (max_rows) the token */
    double *nll;      /* (max_rows) */
    size_t n_scored;
    bg_perplexity *out;
    bg_error *err;
} scorer;

static void scorer_free(scorer *s)
{
    bg_run_free(s->run);
    bg_free(s->ids);
    bg_free(s->sequences);
    bg_free(s->rows);
    bg_free(s->targets);
    bg_free(s->nll);
}

/* As many windows at once as keep the device busy, each as if it was alone. */
static bg_status scorer_init(scorer *s, const bg_model *model, size_t max_length,
                             bg_perplexity *out, bg_error *err)
{
    const size_t rows = model->backend->ops->rows_at_once(model->backend);
    const bool alone = !bg_model_separates(model);
    *s = (scorer){.out = out, .err = err};
    s->max_windows = alone ? 1 : bg_max_size(rows / max_length, 1);
    s->max_rows = s->max_windows * max_length;
    s->ids = bg_alloc_array(s->max_rows, sizeof *s->ids);
    s->sequences = bg_alloc_array(s->max_windows, sizeof *s->sequences);
    s->rows = bg_alloc_array(s->max_rows, sizeof *s->rows);
    s->targets = bg_alloc_array(s->max_rows, sizeof *s->targets);
    s->nll = bg_alloc_array(s->max_rows, sizeof *s->nll);
    bg_status status = BG_OK;
    if (!s->ids || !s->sequences || !s->rows || !s->targets || !s->nll)
        status = bg_fail_memory(err, 32 * s->max_rows, "perplexity");
    if (status == BG_OK)
        status = bg_run_create(model, s->max_rows, s->max_windows, max_length, s->max_rows, &s->run,
                               err);
    if (status == BG_OK)
        bg_run_separate(s->run);
    else
        scorer_free(s);
    return status;
}

/* Scores what has been gathered. */
static bg_status run_windows(scorer *s)
{
    if (s->n_windows == 0) return BG_OK;
    BG_TRY(bg_run_forward_to(s->run, s->ids, s->sequences, s->n_windows, s->rows, s->n_scored,
                             s->err));
    BG_TRY(bg_run_score(s->run, s->n_scored, s->targets, s->nll, s->err));
    for (size_t i = 0; i < s->n_scored; i++) s->out->nll += s->nll[i];
    s->out->tokens += (int64_t)s->n_scored;
    s->n_windows = s->n_rows = s->n_scored = 0;
    return BG_OK;
}

/* Adds a window of `n` tokens, of which those from `first` on are scored, each given all before. */
static bg_status score_window(scorer *s, const int32_t *ids, size_t n, size_t first)
{
    if (first < 1) first = 1;
    if (n <= first) return BG_OK;
    if (s->n_windows == s->max_windows || n > s->max_rows - s->n_rows) BG_TRY(run_windows(s));
    memcpy(s->ids + s->n_rows, ids, n * sizeof *ids);
    for (size_t i = first; i < n; i++) {
        s->rows[s->n_scored] = s->n_rows + i - 1;
        s->targets[s->n_scored++] = ids[i];
    }
    s->sequences[s->n_windows] =
        (bg_sequence){.first_row = s->n_rows, .rows = n, .slot = s->n_windows, .keys = n};
    s->n_windows++;
    s->n_rows += n;
    return s->n_windows == s->max_windows ? run_windows(s) : BG_OK;
}

static bg_status report(bg_progress progress, uint64_t done, uint64_t total, const char *stage,
                        bg_error *err)
{
    if (!progress.call || progress.call(progress.context, stage, done, total)) return BG_OK;
    return bg_fail(err, BG_ERR_INTERRUPTED, "interrupted while measuring perplexity");
}

/* Characters of a line without white space at its ends; -1 for invalid UTF-8. */
static int64_t stripped_length(const char *line, size_t size)
{
    if (!bg_is_utf8(line, size)) return -1;
    size_t leading = bg_leading_space(line, size);
    size -= leading;
    return (int64_t)bg_count_characters(line + leading,
                                        size - bg_trailing_space(line + leading, size));
}

static bg_status score_lines(scorer *s, const bg_tokenizer *tokenizer, const char *path,
                             const bg_text *text, const bg_perplexity_options *o,
                             bg_progress progress)
{
    const char *at = text->data, *end = at + text->size;
    int64_t lines = 0;
    for (size_t number = 1; at < end && (o->limit <= 0 || lines < o->limit); number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *line = at;
        size_t size = (size_t)((newline ? newline : end) - at);
        at = newline ? newline + 1 : end;
        int64_t length = stripped_length(line, size);
        if (length < 0)
            return bg_fail(s->err, BG_ERR_FORMAT,
                           "%s, line %zu: not valid UTF-8; convert the file to UTF-8", path,
                           number);
        if (length <= SHORT_LINE) continue;
        lines++;
        int32_t *ids;
        size_t n;
        BG_TRY(bg_tokenizer_encode_truncated(tokenizer, line, size, true, (size_t)o->max_length,
                                             &ids, &n, s->err));
        bg_status status = score_window(s, ids, n, 1);
        bg_ids_free(ids);
        BG_TRY(status);
        BG_TRY(report(progress, o->limit > 0 ? (uint64_t)lines : (uint64_t)(at - text->data),
                      o->limit > 0 ? (uint64_t)o->limit : text->size, "perplexity, lines", s->err));
    }
    return BG_OK;
}

/* Scores the first `most` windows of a text. */
static bg_status score_ids(scorer *s, const int32_t *ids, size_t n, size_t most, const char *stage,
                           const bg_perplexity_options *o, bg_progress progress)
{
    const bool sliding = o->protocol == BG_PROTOCOL_SLIDING;
    const size_t length = (size_t)o->max_length, step = sliding ? (size_t)o->stride : length;
    size_t scored = 0; /* tokens that earlier windows have scored */
    for (size_t i = 0, begin = 0; begin < n && i < most; i++, begin += step) {
        size_t end = bg_min_size(begin + length, n);
        BG_TRY(score_window(s, ids + begin, end - begin, sliding ? scored - begin : 1));
        scored = end;
        BG_TRY(report(progress, end, n, stage, s->err));
        if (end == n) break;
    }
    return run_windows(s);
}

/* Where operations are queued, the first passes take longer than the rest: they are made twice, and
 * the first time is told apart. */
static bg_status score_untimed(scorer *s, const int32_t *ids, size_t n,
                               const bg_perplexity_options *o, bg_progress progress)
{
    if (!s->run->model->backend->ops->queues) return BG_OK;
    const double start = bg_seconds();
    BG_TRY(score_ids(s, ids, n, UNTIMED_PASSES * s->max_windows, "warming up", o, progress));
    *s->out = (bg_perplexity){.untimed = bg_seconds() - start};
    return BG_OK;
}

static bg_status score_windows(scorer *s, const bg_tokenizer *tokenizer, const char *path,
                               const bg_text *text, const bg_perplexity_options *o,
                               bg_progress progress)
{
    int32_t *ids;
    size_t n;
    BG_TRY(report(progress, 0, 0, "tokenizing", s->err));
    bg_status status =
        bg_tokenizer_encode(tokenizer, text->data, text->size, true, &ids, &n, s->err);
    if (status != BG_OK) return bg_error_context(s->err, "%s", path);
    if (o->max_tokens > 0) n = bg_min_size(n, (size_t)o->max_tokens);
    status = score_untimed(s, ids, n, o, progress);
    const char *stage =
        o->protocol == BG_PROTOCOL_SLIDING ? "perplexity, sliding" : "perplexity, chunks";
    if (status == BG_OK) status = score_ids(s, ids, n, SIZE_MAX, stage, o, progress);
    bg_ids_free(ids);
    return status;
}

bg_status bg_perplexity_complete(const bg_config *config, bg_perplexity_options *o, bg_error *err)
{
    const int64_t context = config->max_position_embeddings;
    if (o->max_length == 0)
        o->max_length = o->protocol == BG_PROTOCOL_LINES && context > 128 ? 128
                        : context < 2048                                  ? context
                                                                          : 2048;
    if (o->stride == 0) o->stride = o->max_length / 2;
    if (o->max_length < 2 || o->max_length > context)
        return bg_fail(err, BG_ERR_USAGE,
                       "perplexity: a max length of %lld does not fit this model; choose from 2 to "
                       "%lld tokens",
                       (long long)o->max_length, (long long)context);
    if (o->protocol == BG_PROTOCOL_SLIDING && (o->stride < 1 || o->stride > o->max_length))
        return bg_fail(err, BG_ERR_USAGE,
                       "perplexity: a stride of %lld would leave tokens out; choose from 1 to the "
                       "max length, %lld",
                       (long long)o->stride, (long long)o->max_length);
    return BG_OK;
}

bg_status bg_perplexity_measure(const bg_model *model, const bg_tokenizer *tokenizer,
                                const char *path, const bg_perplexity_options *options,
                                bg_progress progress, bg_perplexity *out, bg_error *err)
{
    *out = (bg_perplexity){0};
    bg_perplexity_options o = *options;
    if (model->config.arch->task != BG_TASK_DECODER)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "perplexity needs a model that predicts the next token; %s is not one (use "
                       "`bitgauge classify`)",
                       model->config.architecture);
    BG_TRY(bg_perplexity_complete(&model->config, &o, err));
    bg_text text;
    BG_TRY(bg_eval_text_read(path, &text, err));
    scorer s;
    bg_status status = scorer_init(&s, model, (size_t)o.max_length, out, err);
    if (status == BG_OK) {
        status = o.protocol == BG_PROTOCOL_LINES
                     ? score_lines(&s, tokenizer, path, &text, &o, progress)
                     : score_windows(&s, tokenizer, path, &text, &o, progress);
        if (status == BG_OK) status = run_windows(&s);
        scorer_free(&s);
    }
    if (status == BG_OK && out->tokens == 0)
        status = bg_fail(err, BG_ERR_FORMAT,
                         "%s: there is nothing in it to score by %s; give a text with %s", path,
                         bg_protocol_name(o.protocol),
                         o.protocol == BG_PROTOCOL_LINES ? "lines of over 20 characters"
                                                         : "at least two tokens");
    bg_text_free(&text);
    out->value = exp(out->nll / (double)out->tokens);
    if (status == BG_OK && !isfinite(out->value))
        status = bg_fail(err, BG_ERR_FORMAT,
                         "%s: the perplexity by %s is not a finite number; the weights hold NaN or "
                         "infinity, or overflow at this precision",
                         path, bg_protocol_name(o.protocol));
    return status;
}
