#include "eval/generate.h"

#include "core/alloc.h"
#include "eval/sample.h"

#include <math.h>
#include <string.h>

typedef struct {
    const bg_generate_options *options;
    bg_run *run;
    float *logits;         /* (vocab_size) */
    bg_candidate *scratch; /* (vocab_size), when sampling */
    bg_random random;
    int chosen;    /* of the tokens that the configuration forces */
    size_t prefix; /* tokens of the prompt that all see each other */
} generator;

static bool is_end(const bg_config *c, int64_t id)
{
    for (int i = 0; i < c->n_end_tokens; i++)
        if (c->end_token_ids[i] == id) return true;
    return false;
}

/* Runs tokens [past, past + n) and chooses the one after them. */
static bg_status next_token(generator *g, const int32_t *ids, size_t past, size_t n, int32_t *next,
                            bg_error *err)
{
    const bg_config *c = &g->run->model->config;
    bg_sequence sequence = {.rows = n, .past = past, .keys = past + n, .prefix = g->prefix};
    BG_TRY(bg_run_forward(g->run, ids + past, &sequence, 1, err));
    if (g->chosen < c->n_forced) {
        *next = (int32_t)c->forced_ids[g->chosen++];
        return BG_OK;
    }
    size_t last = n - 1, vocabulary = (size_t)c->vocab_size;
    BG_TRY(bg_run_select(g->run, &last, 1, err));
    BG_TRY(bg_run_logits(g->run, 1, g->logits, err));
    for (size_t i = 0; i < vocabulary; i++)
        if (isnan(g->logits[i]))
            return bg_fail(err, BG_ERR_FORMAT,
                           "the logits are not numbers; the weights hold NaN or infinity, or "
                           "overflow at this precision");
    for (int i = 0; !g->options->stop_at_eos && i < c->n_end_tokens; i++)
        if (c->end_token_ids[i] >= 0 && c->end_token_ids[i] < c->vocab_size)
            g->logits[c->end_token_ids[i]] = -INFINITY;
    *next = g->options->temperature > 0
                ? bg_choose_sampled(g->logits, vocabulary, g->options->temperature,
                                    g->options->top_k, g->options->top_p, &g->random, g->scratch)
                : bg_choose_largest(g->logits, vocabulary);
    return BG_OK;
}

static bg_status generate(generator *g, bg_progress progress, bg_generation *out, bg_error *err)
{
    size_t past = 0;
    for (int i = 0; i < g->options->max_new_tokens; i++) {
        int32_t next = 0;
        BG_TRY(next_token(g, out->ids, past, out->n - past, &next, err));
        past = out->n;
        out->ids[out->n++] = next;
        if (progress.call && !progress.call(progress.context, "generating", (uint64_t)i + 1,
                                            (uint64_t)g->options->max_new_tokens))
            return bg_fail(err, BG_ERR_INTERRUPTED, "interrupted while generating");
        if (is_end(&g->run->model->config, next)) {
            out->ended = true;
            break;
        }
    }
    return BG_OK;
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
    generator g = {.options = options, .random = {options->seed}};
    const size_t vocabulary = (size_t)c->vocab_size;
    bg_status status = BG_OK;
    out->ids = bg_alloc_array(most, sizeof *out->ids);
    g.logits = bg_alloc_array(vocabulary, sizeof *g.logits);
    if (options->temperature > 0) g.scratch = bg_alloc_array(vocabulary, sizeof *g.scratch);
    if (!out->ids || !g.logits || (options->temperature > 0 && !g.scratch))
        status = bg_fail_memory(err, vocabulary * sizeof *g.logits, "generation");
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
        if (status == BG_OK) status = generate(&g, progress, out, err);
    }
    bg_run_free(g.run);
    bg_free(g.logits);
    bg_free(g.scratch);
    if (status != BG_OK) bg_generation_free(out);
    return status;
}

void bg_generation_free(bg_generation *generation)
{
    bg_free(generation->ids);
    *generation = (bg_generation){0};
}
