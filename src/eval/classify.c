#include "eval/classify.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "core/clock.h"
#include "eval/dataset.h"
#include "tokenizer/tokenizer.h"

#include <math.h>
#include <string.h>

static bg_status classify_one(bg_run *run, const bg_tokenizer *tokenizer, const bg_example *example,
                              size_t max_length, bool pad, int32_t *ids, float *logits,
                              bg_accuracy *out, bg_error *err)
{
    const bg_config *c = &run->model->config;
    int32_t *encoded;
    size_t n;
    BG_TRY(bg_tokenizer_encode_truncated(tokenizer, example->text, example->size, true, max_length,
                                         &encoded, &n, err));
    if (n <= max_length) memcpy(ids, encoded, n * sizeof *ids);
    bg_ids_free(encoded);
    if (n > max_length)
        return bg_fail(err, BG_ERR_INTERNAL, "a sentence of %zu tokens was not cut to %zu", n,
                       max_length);
    if (n == 0) return bg_fail(err, BG_ERR_FORMAT, "a sentence has no tokens; remove it");
    size_t rows = pad ? max_length : n;
    int32_t padding = c->pad_token_id >= 0 ? (int32_t)c->pad_token_id : 0;
    for (size_t i = n; i < rows; i++) ids[i] = padding;
    bg_sequence sequence = {.rows = rows, .keys = n};
    double start = bg_seconds();
    BG_TRY(bg_run_forward(run, ids, &sequence, 1, err));
    BG_TRY(bg_run_classify(run, &sequence, 1, logits, err));
    out->seconds[out->total] = bg_seconds() - start;
    for (int64_t k = 0; k < c->num_labels; k++)
        if (!isfinite(logits[k]))
            return bg_fail(err, BG_ERR_FORMAT,
                           "the logits are not numbers; the weights hold NaN or infinity, or "
                           "overflow at this precision");
    int32_t best = 0;
    for (int32_t k = 1; k < c->num_labels; k++)
        if (logits[k] > logits[best]) best = k;
    out->correct += best == example->label;
    out->total++;
    out->tokens += (int64_t)rows;
    return BG_OK;
}

bg_status bg_classify_measure(const bg_model *model, const bg_tokenizer *tokenizer,
                              const char *path, int64_t limit, int max_length, bool pad,
                              bg_progress progress, bg_accuracy *out, bg_error *err)
{
    const bg_config *c = &model->config;
    *out = (bg_accuracy){0};
    if (c->arch->task != BG_TASK_CLASSIFIER)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "classify needs a sequence classifier; %s is not one (use `bitgauge "
                       "perplexity`)",
                       c->architecture);
    if (max_length < 3 || max_length > c->max_position_embeddings)
        return bg_fail(
            err, BG_ERR_USAGE,
            "classify: a max length of %d does not fit this model; choose from 3 to %lld",
            max_length, (long long)c->max_position_embeddings);
    bg_dataset data;
    BG_TRY(bg_dataset_open(path, limit, &data, err));
    bg_run *run = NULL;
    size_t length = (size_t)max_length;
    int32_t *ids = bg_alloc_array(length, sizeof *ids);
    float *logits = bg_alloc_array((size_t)c->num_labels, sizeof *logits);
    out->seconds = bg_alloc_array(data.n, sizeof *out->seconds);
    bg_status status = BG_OK;
    if (!ids || !logits || !out->seconds)
        status = bg_fail_memory(err, 8 * data.n, "classification");
    if (status == BG_OK) status = bg_run_create(model, length, 1, length, 1, &run, err);
    for (size_t i = 0; i < data.n && status == BG_OK; i++) {
        if (data.examples[i].label >= c->num_labels) {
            status = bg_fail(err, BG_ERR_FORMAT,
                             "%s: sentence %zu has the label %d, but the model has %lld labels; "
                             "give data for this model",
                             path, i + 1, data.examples[i].label, (long long)c->num_labels);
            break;
        }
        status =
            classify_one(run, tokenizer, &data.examples[i], length, pad, ids, logits, out, err);
        if (status != BG_OK) {
            bg_error_context(err, "%s, sentence %zu", path, i + 1);
            break;
        }
        if (progress.call && !progress.call(progress.context, "classifying", i + 1, data.n))
            status = bg_fail(err, BG_ERR_INTERRUPTED, "interrupted while classifying");
    }
    bg_run_free(run);
    bg_free(ids);
    bg_free(logits);
    bg_dataset_close(&data);
    if (status != BG_OK) bg_accuracy_free(out);
    return status;
}

void bg_accuracy_free(bg_accuracy *accuracy)
{
    bg_free(accuracy->seconds);
    *accuracy = (bg_accuracy){0};
}
