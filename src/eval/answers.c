#include "eval/answers.h"

#include "core/alloc.h"
#include "core/text.h"
#include "eval/dataset.h"
#include "eval/generate.h"
#include "eval/words.h"

#include <string.h>

bg_status bg_answer(const bg_model *model, const bg_tokenizer *tokenizer, const char *question,
                    const char *sentence, size_t size, char **answer, bg_error *err)
{
    const bg_generate_options options = {
        .max_new_tokens = BG_ANSWER_TOKENS, .stop_at_eos = true, .top_p = 1};
    bg_text prompt = {0};
    bg_generation g = {0};
    int32_t *ids = NULL;
    size_t n = 0, length = 0;
    char *text = NULL;
    *answer = NULL;
    bg_text_puts(&prompt, question);
    bg_text_append(&prompt, sentence, size);
    bg_status status = prompt.failed ? bg_fail_memory(err, size, "a question")
                                     : bg_tokenizer_encode(tokenizer, prompt.data, prompt.size,
                                                           true, &ids, &n, err);
    if (status == BG_OK) status = bg_generate(model, ids, n, &options, (bg_progress){0}, &g, err);
    if (status == BG_OK)
        status = bg_tokenizer_decode(tokenizer, g.ids + g.first_new, g.n - g.first_new, true, &text,
                                     &length, err);
    if (status == BG_OK) {
        size_t leading = bg_leading_space(text, length);
        length -= leading;
        length -= bg_trailing_space(text + leading, length);
        *answer = bg_strndup(text + leading, length);
        if (!*answer) status = bg_fail_memory(err, length, "an answer");
    }
    bg_string_free(text);
    bg_generation_free(&g);
    bg_ids_free(ids);
    bg_text_free(&prompt);
    return status;
}

bg_status bg_answers_measure(const bg_model *model, const bg_tokenizer *tokenizer,
                             const char *question, const char *path, int64_t limit,
                             bg_progress progress, double **right, size_t *n, bg_error *err)
{
    static const char *const words[] = {"negative", "positive"};
    bg_dataset data;
    *n = 0;
    *right = NULL;
    BG_TRY(bg_dataset_open(path, limit, &data, err));
    bg_status status = BG_OK;
    *right = bg_alloc_array(data.n, sizeof **right);
    if (!*right) status = bg_fail_memory(err, data.n * sizeof **right, "answers");
    for (size_t i = 0; i < data.n && status == BG_OK; i++) {
        const bg_example *e = &data.examples[i];
        char *answer;
        status = e->label > 1
                     ? bg_fail(err, BG_ERR_FORMAT,
                               "the label is %d; it must be 0, negative, or 1, positive", e->label)
                     : bg_answer(model, tokenizer, question, e->text, e->size, &answer, err);
        if (status != BG_OK) {
            bg_error_context(err, "%s, sentence %zu", path, i + 1);
            break;
        }
        (*right)[(*n)++] = strcmp(answer, words[e->label]) == 0;
        bg_free(answer);
        if (progress.call && !progress.call(progress.context, "sst2, answers", i + 1, data.n))
            status = bg_fail(err, BG_ERR_INTERRUPTED, "interrupted while answers were generated");
    }
    bg_dataset_close(&data);
    return status;
}
