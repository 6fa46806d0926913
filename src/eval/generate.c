#include "eval/generate.h"

#include "backend/choice.h"
#include "core/alloc.h"

#include <string.h>

typedef struct {
    const bg_generate_options *options;
    bg_run *run;
    bg_choice how;
    bg_random random;
    double uniform; /* for the next choice */
    size_t prefix;  /* tokens of the prompt that all see each other */
    bg_progress progress;
    bg_generation *out;
} generator;

static bool is_end(const bg_config *c, int64_t id)
{
    for (int i = 0; i < c->n_end_tokens; i++)
        if (c->end_token_ids[i] == id) return true;
    return false;
}

/* Runs n tokens behind `past`; NULL is the one chosen last. */
static bg_status run(generator *g, const int32_t *ids, size_t past, size_t n, bg_error *err)
{
    const bg_sequence sequence = {.rows = n, .past = past, .keys = past + n, .prefix = g->prefix};
    return bg_run_forward(g->run, ids, &sequence, 1, err);
}

/* Runs them and chooses the one after them. */
static bg_status run_and_choose(generator *g, const int32_t *ids, size_t past, size_t n,
                                bg_error *err)
{
    const size_t last = n - 1;
    BG_TRY(run(g, ids, past, n, err));
    g->uniform = bg_random_uniform(&g->random);
    BG_TRY(bg_run_select(g->run, &last, 1, err));
    return bg_run_choose(g->run, 1, &g->how, err);
}

/* Adds new token i to the text. */
static bg_status add(generator *g, int i, int32_t id, bg_error *err)
{
    const uint64_t all = (uint64_t)g->options->max_new_tokens;
    bg_generation *out = g->out;
    out->ids[out->n++] = id;
    if (g->progress.call &&
        !g->progress.call(g->progress.context, "generating", (uint64_t)i + 1, all))
        return bg_fail(err, BG_ERR_INTERRUPTED, "interrupted while generating");
    out->ended = is_end(&g->run->model->config, id);
    return BG_OK;
}

/* New tokens from the i-th on, when [past, out->n) have not been run. Where the device queues, the
 * step after a token is queued before the token is known here: one may run in vain. */
static bg_status choose_tokens(generator *g, int i, size_t past, bg_error *err)
{
    const bool queues = g->run->model->backend->ops->queues;
    const int most = g->options->max_new_tokens;
    bg_generation *out = g->out;
    if (i == most || out->ended) return BG_OK;
    BG_TRY(run_and_choose(g, out->ids + past, past, out->n - past, err));
    for (;; i++) {
        const bool goes_on = i + 1 < most;
        int32_t id;
        if (goes_on && queues) BG_TRY(run_and_choose(g, NULL, out->n, 1, err));
        BG_TRY(bg_run_chosen(g->run, goes_on && queues, 1, &id, err));
        if (id < 0)
            return bg_fail(err, BG_ERR_FORMAT,
                           "the logits are not numbers; the weights hold NaN or infinity, or "
                           "overflow at this precision");
        BG_TRY(add(g, i, id, err));
        if (!goes_on || out->ended) return BG_OK;
        if (!queues) BG_TRY(run_and_choose(g, NULL, out->n - 1, 1, err));
    }
}

static bg_status generate(generator *g, bg_error *err)
{
    const bg_config *c = &g->run->model->config;
    bg_generation *out = g->out;
    size_t past = 0;
    int i = 0;
    for (; i < c->n_forced && i < g->options->max_new_tokens && !out->ended; i++) {
        BG_TRY(run(g, out->ids + past, past, out->n - past, err));
        past = out->n;
        BG_TRY(add(g, i, (int32_t)c->forced_ids[i], err));
    }
    return choose_tokens(g, i, past, err);
}

/* The end tokens that the vocabulary has, to `ids`. */
static size_t end_tokens(const bg_config *c, int32_t *ids)
{
    size_t n = 0;
    for (int i = 0; i < c->n_end_tokens; i++)
        if (c->end_token_ids[i] >= 0 && c->end_token_ids[i] < c->vocab_size)
            ids[n++] = (int32_t)c->end_token_ids[i];
    return n;
}

bg_status bg_generate(const bg_model *model, const int32_t *prompt, size_t n_prompt,
                      const bg_generate_options *options, bg_progress progress, bg_generation *out,
                      bg_error *err)
{
    const bg_config *c = &model->config;
    *out = (bg_generation){0};
    const bool reads = c->arch->task == BG_TASK_SEQ2SEQ;
    if (c->arch->task != BG_TASK_DECODER && !reads)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "generate needs a model that predicts the next "
                       "token; %s is not one (use `bitgauge classify`)",
                       c->architecture);
    if (n_prompt == 0)
        return bg_fail(err, BG_ERR_USAGE, "a prompt has no tokens; give one with some text");
    const size_t held = reads ? 1 : n_prompt; /* by the decoder */
    const size_t most = held + (size_t)options->max_new_tokens;
    const size_t longest = most > n_prompt ? most : n_prompt;
    if (most > (size_t)c->max_position_embeddings)
        return bg_fail(err, BG_ERR_USAGE,
                       "a prompt of %zu tokens and %d new ones are more than the %lld positions of "
                       "this model; shorten the prompt or lower --max-new-tokens",
                       n_prompt, options->max_new_tokens, (long long)c->max_position_embeddings);
    int32_t ends[BG_MAX_END_TOKENS];
    generator g = {.options = options, .random = {options->seed}, .progress = progress, .out = out};
    g.how = (bg_choice){.forbidden = ends,
                        .n_forbidden = options->stop_at_eos ? 0 : end_tokens(c, ends),
                        .temperature = options->temperature,
                        .top_k = options->top_k,
                        .top_p = options->top_p,
                        .uniform = &g.uniform};
    bg_status status = BG_OK;
    out->ids = bg_alloc_array(most, sizeof *out->ids);
    if (!out->ids) status = bg_fail_memory(err, most * sizeof *out->ids, "generation");
    if (status == BG_OK) status = bg_run_create(model, n_prompt, 1, longest, 1, &g.run, err);
    if (status == BG_OK) {
        const int32_t start = (int32_t)c->decoder_start_token_id;
        const bg_sequence source = {.rows = n_prompt, .keys = n_prompt};
        memcpy(out->ids, reads ? &start : prompt, held * sizeof *prompt);
        g.prefix = c->arch->prefix_attention ? n_prompt : 0;
        out->n = out->first_new = held;
        out->prompt_tokens = n_prompt;
        if (reads) status = bg_run_encode(g.run, prompt, &source, 1, err);
        if (status == BG_OK && options->pixels)
            status = bg_run_look(g.run, options->pixels, 1, err);
        if (status == BG_OK) status = generate(&g, err);
    }
    bg_run_free(g.run);
    if (status != BG_OK) bg_generation_free(out);
    return status;
}

void bg_generation_free(bg_generation *generation)
{
    bg_free(generation->ids);
    *generation = (bg_generation){0};
}
