#include "bench/generations.h"

#include "core/alloc.h"
#include "eval/generate.h"
#include "eval/prompt.h"

static bg_status add(const bg_job *job, const bg_tokenizer *tokenizer, const char *prompt,
                     const bg_generation *g, json_t *list, bg_error *err)
{
    const int32_t *ids = g->ids + g->first_new;
    const size_t n = g->n - g->first_new;
    json_t *tokens = json_array();
    for (size_t i = 0; tokens && i < n; i++)
        if (json_array_append_new(tokens, json_integer(ids[i])) != 0) {
            json_decref(tokens);
            tokens = NULL;
        }
    if (!tokens) return bg_fail_memory(err, n * 16, "token ids");
    char *text;
    bg_status status = bg_tokenizer_decode(tokenizer, ids, n, true, &text, NULL, err);
    if (status != BG_OK) {
        json_decref(tokens);
        return status;
    }
    json_t *entry =
        json_pack("{s:s, s:s*, s:I, s:o, s:s, s:s}", "prompt", prompt, "image", job->generate.image,
                  "prompt_tokens", (json_int_t)g->prompt_tokens, "token_ids", tokens, "text", text,
                  "finish", g->ended ? "eos" : "length");
    bg_string_free(text);
    if (entry && json_array_append_new(list, entry) == 0) return BG_OK;
    return bg_fail_memory(err, 4096, "a generated text");
}

bg_status bg_generations_run(const bg_job *job, const bg_model *model,
                             const bg_tokenizer *tokenizer, bg_progress progress, json_t *run,
                             bg_error *err)
{
    const bg_config *c = &model->config;
    float *pixels = NULL;
    if (job->generate.image)
        BG_TRY(bg_prompt_image(c, job->model, job->generate.image, &pixels, err));
    /* Texts of one length compare best; but an answer that may not end turns to nonsense. */
    const bool stops = job->generate.stop_at_eos || c->arch->task == BG_TASK_SEQ2SEQ;
    const bg_generate_options options = {job->generate.max_new_tokens,
                                         stops,
                                         job->generate.temperature,
                                         job->generate.top_k,
                                         job->generate.top_p,
                                         job->generate.seed,
                                         pixels};
    json_t *list = json_array();
    bg_status status = BG_OK;
    if (json_object_set_new(run, "generations", list) != 0)
        status = bg_fail_memory(err, 64, "generations");
    for (size_t i = 0; i < job->generate.n_prompts && status == BG_OK; i++) {
        const char *prompt = job->generate.prompts[i];
        int32_t *ids = NULL;
        size_t n;
        bg_generation g = {0};
        status = bg_prompt_encode(c, tokenizer, prompt, pixels != NULL, &ids, &n, err);
        if (status == BG_OK) status = bg_generate(model, ids, n, &options, progress, &g, err);
        if (status == BG_OK) status = add(job, tokenizer, prompt, &g, list, err);
        bg_ids_free(ids);
        bg_generation_free(&g);
        if (status != BG_OK) bg_error_context(err, "prompt %zu", i + 1);
    }
    bg_free(pixels);
    return status;
}
