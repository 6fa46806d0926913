#include "bench/timing.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "core/clock.h"

#include <math.h>

/* Tokens that an image takes up before the prompt. */
static size_t image_tokens(const bg_config *c)
{
    return c->encoder && c->arch->task == BG_TASK_DECODER ? bg_config_patches(c->encoder) : 0;
}

/* The text's length: what was asked for, or the default as far as the model has positions. */
static size_t text_length(const bg_config *c, int asked, size_t new_tokens)
{
    const size_t taken = new_tokens + image_tokens(c);
    const size_t context = (size_t)c->max_position_embeddings;
    if (asked > 0) return (size_t)asked;
    const size_t usual = c->arch->task == BG_TASK_CLASSIFIER ? 128 : 32;
    return bg_min_size(usual, context > taken ? context - taken : 1);
}

bg_status bg_timing_check(const bg_config *c, int prompt_tokens, int new_tokens, bg_error *err)
{
    const bool classifier = c->arch->task == BG_TASK_CLASSIFIER;
    const size_t decoded = classifier ? 0 : (size_t)new_tokens;
    const size_t prompt = text_length(c, prompt_tokens, decoded) + image_tokens(c);
    if (prompt + decoded <= (size_t)c->max_position_embeddings) return BG_OK;
    if (classifier)
        return bg_fail(err, BG_ERR_USAGE,
                       "sentences of %zu tokens are longer than the %lld positions of this model; "
                       "lower --prompt-tokens",
                       prompt, (long long)c->max_position_embeddings);
    return bg_fail(
        err, BG_ERR_USAGE,
        "%zu prompt tokens and %d new ones are more than the %lld positions of this model; "
        "lower --prompt-tokens or --new-tokens",
        prompt, new_tokens, (long long)c->max_position_embeddings);
}

/* The same prompt for every sequence and round, and a picture of stripes. */
static void fill_in(bg_timing *t)
{
    const bg_config *c = &t->model->config;
    const size_t image = image_tokens(c), rows = t->prompt_tokens * t->batch;
    for (size_t i = 0; i < rows; i++) {
        const int32_t word = (int32_t)((i * 7919 + 13) % (size_t)c->vocab_size);
        t->ids[i] = i % t->prompt_tokens < image ? (int32_t)c->image_token_id
                    : word == c->image_token_id  ? 0
                                                 : word;
    }
    if (!image) return;
    const bg_config *e = c->encoder;
    const size_t values = (size_t)(e->num_channels * e->image_size * e->image_size);
    for (size_t i = 0; i < values * t->batch; i++) t->pixels[i] = (float)(i % 511) / 255 - 1;
}

bg_status bg_timing_create(const bg_model *model, int prompt_tokens, int new_tokens, int batch,
                           bg_timing **out, bg_error *err)
{
    const bg_config *c = &model->config;
    *out = NULL;
    BG_TRY(bg_timing_check(c, prompt_tokens, new_tokens, err));
    if (image_tokens(c) > 0 && c->image_token_id < 0)
        return bg_fail(err, BG_ERR_FORMAT,
                       "config.json names no image token (\"image_token_index\")");
    bg_timing *t = bg_calloc(1, sizeof *t);
    if (!t) return bg_fail_memory(err, sizeof *t, "a benchmark");
    t->model = model;
    t->batch = (size_t)batch;
    t->new_tokens = c->arch->task == BG_TASK_CLASSIFIER ? 0 : (size_t)new_tokens;
    t->prompt_tokens = text_length(c, prompt_tokens, t->new_tokens) + image_tokens(c);
    const size_t rows = t->prompt_tokens * t->batch;
    const size_t length = t->prompt_tokens + t->new_tokens + 1;
    const bg_config *e = image_tokens(c) > 0 ? c->encoder : NULL;
    const size_t values = e ? (size_t)(e->num_channels * e->image_size * e->image_size) : 0;
    t->ids = bg_alloc_array(rows, sizeof *t->ids);
    t->next = bg_calloc(t->batch, sizeof *t->next);
    t->last = bg_alloc_array(t->batch, sizeof *t->last);
    t->sequences = bg_alloc_array(t->batch, sizeof *t->sequences);
    t->labels = bg_alloc_array(t->batch * (size_t)c->num_labels, sizeof *t->labels);
    t->pixels = bg_alloc_array(t->batch * values + 1, sizeof *t->pixels);
    bg_status status = BG_OK;
    if (!t->ids || !t->next || !t->last || !t->sequences || !t->labels || !t->pixels)
        status = bg_fail_memory(err, rows * sizeof *t->ids, "a benchmark");
    if (status == BG_OK)
        status = bg_run_create(model, rows, t->batch, length, t->batch, &t->run, err);
    if (status != BG_OK) {
        bg_timing_free(t);
        return status;
    }
    fill_in(t);
    *out = t;
    return BG_OK;
}

void bg_timing_free(bg_timing *t)
{
    if (!t) return;
    bg_run_free(t->run);
    bg_free(t->ids);
    bg_free(t->next);
    bg_free(t->last);
    bg_free(t->sequences);
    bg_free(t->labels);
    bg_free(t->pixels);
    bg_free(t);
}

/* Sequences of `rows` new tokens each behind `past`. */
static void lay_out(bg_timing *t, size_t past, size_t rows)
{
    const bool prefix = t->model->config.arch->prefix_attention;
    for (size_t i = 0; i < t->batch; i++) {
        t->sequences[i] = (bg_sequence){.first_row = i * rows,
                                        .rows = rows,
                                        .slot = i,
                                        .past = past,
                                        .keys = past + rows,
                                        .prefix = prefix ? t->prompt_tokens : 0};
        t->last[i] = i * rows + rows - 1;
    }
}

/* Chooses the token after each sequence's last. */
static bg_status choose(bg_timing *t, bg_error *err)
{
    BG_TRY(bg_run_select(t->run, t->last, t->batch, err));
    return bg_run_choose(t->run, t->batch, &(bg_choice){0}, err);
}

/* Waits for the tokens chosen last, or with `ago` 1 for those before them, to t->next. */
static bg_status get(bg_timing *t, size_t ago, bg_error *err)
{
    return bg_run_chosen(t->run, ago, t->batch, t->next, err);
}

/* Reads the prompt; *past is then how many positions of each sequence the decoder has run. */
static bg_status prefill(bg_timing *t, size_t *past, bg_error *err)
{
    const bg_config *c = &t->model->config;
    lay_out(t, 0, t->prompt_tokens);
    if (image_tokens(c) > 0) BG_TRY(bg_run_look(t->run, t->pixels, t->batch, err));
    *past = t->prompt_tokens;
    if (c->arch->task != BG_TASK_SEQ2SEQ)
        return bg_run_forward(t->run, t->ids, t->sequences, t->batch, err);
    BG_TRY(bg_run_encode(t->run, t->ids, t->sequences, t->batch, err));
    *past = 1;
    lay_out(t, 0, 1);
    for (size_t i = 0; i < t->batch; i++) t->next[i] = (int32_t)c->decoder_start_token_id;
    return bg_run_forward(t->run, t->next, t->sequences, t->batch, err);
}

/* One decoding step behind `past` positions, from the tokens chosen last, which the host knows when
 * this comes back. */
static bg_status step(bg_timing *t, size_t past, bg_error *err)
{
    lay_out(t, past, 1);
    BG_TRY(bg_run_forward(t->run, NULL, t->sequences, t->batch, err));
    BG_TRY(choose(t, err));
    return get(t, 1, err);
}

/* The prompt's pass with all that counts as it. */
static bg_status whole_prefill(bg_timing *t, size_t *past, bg_error *err)
{
    bg_backend *backend = t->model->backend;
    BG_TRY(prefill(t, past, err));
    if (t->model->config.arch->task == BG_TASK_CLASSIFIER)
        return bg_run_classify(t->run, t->sequences, t->batch, t->labels, err);
    return backend->ops->synchronize(backend, err);
}

/* Passes one after the other until this much time is gone: one that takes a fraction of a
 * millisecond would tell how the host happened to be. Longer ones are one pass. */
static const double ROUND_SECONDS = 5e-3;

static bg_status prefill_passes(bg_timing *t, size_t *past, double *seconds, size_t *passes,
                                bg_error *err)
{
    const double start = bg_seconds();
    *passes = 0;
    do {
        BG_TRY(whole_prefill(t, past, err));
        *seconds = bg_seconds() - start;
        ++*passes;
    } while (*seconds < ROUND_SECONDS);
    return BG_OK;
}

/* The host's clock is read inside of the device's, which so shows what it cannot: whether the
 * device was idle when the region began and done when it ended. */
bg_status bg_timing_round(bg_timing *t, bg_round *out, bg_error *err)
{
    bg_backend *backend = t->model->backend;
    size_t past, passes;
    double seconds;
    *out = (bg_round){0};
    /* Rounds of two processes take turns, and what this one had of the device, or in its caches,
     * the other may have taken: passes that are not timed bring it back. */
    BG_TRY(prefill_passes(t, &past, &seconds, &passes, err));
    BG_TRY(backend->ops->synchronize(backend, err));
    const double device_start = backend->ops->device_seconds(backend);
    BG_TRY(prefill_passes(t, &past, &seconds, &passes, err));
    out->prefill = seconds / (double)passes;
    const double device_first = backend->ops->device_seconds(backend);
    const bool has_clock = device_start >= 0 && device_first >= 0;
    out->device_prefill = has_clock ? (device_first - device_start) / (double)passes : -1;
    out->device_decode = -1;
    if (t->model->config.arch->task == BG_TASK_CLASSIFIER) return BG_OK;
    const double chosen = bg_seconds();
    BG_TRY(choose(t, err));
    BG_TRY(get(t, 0, err));
    out->first_token = out->prefill + bg_seconds() - chosen;
    const double device_decode = backend->ops->device_seconds(backend);
    const double decode = bg_seconds();
    for (size_t i = 0; i < t->new_tokens; i++) BG_TRY(step(t, past + i, err));
    BG_TRY(get(t, 0, err));
    out->decode = bg_seconds() - decode;
    const double device_end = backend->ops->device_seconds(backend);
    if (device_decode >= 0 && device_end >= 0) out->device_decode = device_end - device_decode;
    return BG_OK;
}

bg_status bg_timing_warm_up(bg_timing *t, int *rounds, bool *settled, bg_error *err)
{
    double start = bg_seconds(), before = 0;
    *settled = false;
    for (*rounds = 1;; ++*rounds) {
        bg_round round;
        BG_TRY(bg_timing_round(t, &round, err));
        double now = round.prefill + round.decode;
        double elapsed = bg_seconds() - start;
        *settled = *rounds > 1 && fabs(now - before) < 0.05 * fmin(now, before);
        if ((*settled && elapsed > 0.25) || *rounds == 50 || (*rounds > 1 && elapsed > 5))
            return BG_OK;
        before = now;
    }
}

/* ---- energy ---------------------------------------------------------------------------------- */

enum { LEAST_SECONDS = 1, MOST_SECONDS = 5 };
static const double POLL_SECONDS = 0.01;

typedef struct {
    bg_timing *timing;
    size_t past, steps; /* decoding: positions before the first step, and steps done */
} energy_loop;

static bg_status prefill_pass(energy_loop *loop, bg_error *err)
{
    return whole_prefill(loop->timing, &loop->past, err);
}

/* The steps of a round, over and over: what they write to the cache is written again. */
static bg_status decode_pass(energy_loop *loop, bg_error *err)
{
    return step(loop->timing, loop->past + loop->steps++ % loop->timing->new_tokens, err);
}

typedef bg_status (*energy_pass)(energy_loop *loop, bg_error *err);

/* Passes until the counter moves: what it says then, -1 where it does not, and when. */
static bg_status until_moved(energy_loop *loop, energy_pass pass, size_t *passes, double *joules,
                             double *when, bg_error *err)
{
    bg_backend *backend = loop->timing->model->backend;
    const double before = backend->ops->joules(backend), begin = bg_seconds();
    double now = begin, polled = begin, read = before;
    while (read == before && read >= 0 && now - begin < MOST_SECONDS) {
        do {
            BG_TRY(pass(loop, err));
            ++*passes;
            now = bg_seconds();
        } while (now - polled < POLL_SECONDS);
        polled = now;
        read = backend->ops->joules(backend);
    }
    *joules = read > before ? read : -1;
    *when = polled;
    return BG_OK;
}

/* From one movement of the counter to another. In between it is not read: the GPU waits for who
 * reads it, for milliseconds. */
static bg_status meter(energy_loop *loop, energy_pass pass, bg_energy *out, bg_error *err)
{
    size_t passes = 0;
    double first, last, begin, end;
    BG_TRY(until_moved(loop, pass, &passes, &first, &begin, err));
    if (first < 0) return BG_OK;
    for (passes = 0; bg_seconds() - begin < LEAST_SECONDS; passes++) BG_TRY(pass(loop, err));
    BG_TRY(until_moved(loop, pass, &passes, &last, &end, err));
    if (last >= 0) *out = (bg_energy){last - first, end - begin, passes};
    return BG_OK;
}

bg_status bg_timing_energy(bg_timing *t, bg_energy *prefill_energy, bg_energy *decode_energy,
                           bg_error *err)
{
    energy_loop loop = {.timing = t};
    *prefill_energy = *decode_energy = (bg_energy){0};
    BG_TRY(meter(&loop, prefill_pass, prefill_energy, err));
    if (prefill_energy->passes == 0 || t->new_tokens == 0) return BG_OK;
    BG_TRY(choose(t, err));
    return meter(&loop, decode_pass, decode_energy, err);
}
