#include "eval/requests.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "eval/words.h"
#include "tokenizer/tokenizer.h"

#include <string.h>

bg_status bg_request_rules_init(const bg_config *config, const bg_tokenizer *tokenizer,
                                bg_request_rules *out, bg_error *err)
{
    *out = (bg_request_rules){.tokenizer = tokenizer, .start = -1, .prefix = -1};
    const bg_task task = config->arch->task;
    if (task != BG_TASK_DECODER && task != BG_TASK_SEQ2SEQ)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "a task needs a model that predicts the next token; %s is not one",
                       config->architecture);
    out->seq2seq = task == BG_TASK_SEQ2SEQ;
    out->start = (int32_t)config->decoder_start_token_id;
    out->max_length = (size_t)config->max_position_embeddings;
    if (config->arch->unbounded_positions) out->max_length = BG_UNBOUNDED_LENGTH;
    out->prefix = bg_tokenizer_special(tokenizer, BG_TOKEN_BOS);
    if (out->prefix < 0) out->prefix = bg_tokenizer_special(tokenizer, BG_TOKEN_EOS);
    if (out->prefix < 0) return BG_OK;
    return bg_tokenizer_decode(tokenizer, &out->prefix, 1, false, &out->prefix_text, NULL, err);
}

void bg_request_rules_free(bg_request_rules *rules)
{
    bg_string_free(rules->prefix_text);
    *rules = (bg_request_rules){0};
}

typedef struct {
    int32_t *ids;
    size_t n;
} tokens;

static bg_status encode(const bg_request_rules *rules, const char *text, size_t size, bool special,
                        tokens *out, bg_error *err)
{
    const size_t n = rules->prefix_text ? strlen(rules->prefix_text) : 0;
    if (n > 0 && size >= n && memcmp(text, rules->prefix_text, n) == 0) special = false;
    return bg_tokenizer_encode(rules->tokenizer, text, size, special, &out->ids, &out->n, err);
}

/* Joins two runs of tokens, of the second one those behind `skip`, into a request that scores
 * `scored`; at most max_length + 1 tokens are kept, the last ones. */
static bg_status join(const bg_request_rules *rules, tokens a, tokens b, size_t skip, size_t scored,
                      bg_request *out, bg_error *err)
{
    const size_t n = a.n + b.n - skip;
    const size_t cut = n > rules->max_length + 1 ? n - rules->max_length - 1 : 0;
    if (scored == 0 || n < 2)
        return bg_fail(err, BG_ERR_FORMAT,
                       "an answer has no tokens of its own behind its context; remove this line");
    if (scored > rules->max_length)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "an answer of %zu tokens is longer than the %zu positions of this model",
                       scored, rules->max_length);
    *out = (bg_request){
        .ids = bg_alloc_array(n - cut, sizeof *out->ids), .n = n - cut, .scored = scored};
    if (!out->ids) return bg_fail_memory(err, n * sizeof *out->ids, "token ids");
    for (size_t i = cut; i < n; i++) out->ids[i - cut] = i < a.n ? a.ids[i] : b.ids[i - a.n + skip];
    return BG_OK;
}

/* A request of a decoder. `whole` is the context and the continuation as one text; `context`, of
 * context_size bytes, is tokenized already. */
static bg_status decoder_request(const bg_request_rules *rules, const char *whole, size_t size,
                                 size_t context_size, tokens context, bg_request *out,
                                 bg_error *err)
{
    tokens both = {0};
    bg_status status;
    if (context_size > 0) {
        BG_TRY(encode(rules, whole, size, true, &both, err));
        size_t skip = bg_min_size(context.n, both.n);
        status = join(rules, context, both, skip, both.n - skip, out, err);
    } else {
        if (rules->prefix < 0)
            return bg_fail(err, BG_ERR_UNSUPPORTED,
                           "a context is empty, and the tokenizer names no token for the "
                           "beginning or the end of a text to put there");
        BG_TRY(bg_tokenizer_encode(rules->tokenizer, whole, size, false, &both.ids, &both.n, err));
        int32_t prefix = rules->prefix;
        bool there = both.n > 0 && both.ids[0] == prefix;
        status = join(rules, (tokens){&prefix, 1}, both, there, both.n - there, out, err);
    }
    bg_ids_free(both.ids);
    return status;
}

/* A request of an encoder-decoder model's decoder. */
static bg_status continuation_request(const bg_request_rules *rules, const char *text, size_t size,
                                      bg_request *out, bg_error *err)
{
    tokens own = {0}, start = {.n = 1};
    int32_t first = rules->start;
    BG_TRY(bg_tokenizer_encode(rules->tokenizer, text, size, false, &own.ids, &own.n, err));
    start.ids = &first;
    bg_status status = join(rules, start, own, 0, own.n, out, err);
    bg_ids_free(own.ids);
    return status;
}

/* The encoder's tokens: the end of the context, as much of it as fits. */
static bg_status set_source(const bg_request_rules *rules, tokens context, bg_request_group *out,
                            bg_error *err)
{
    if (context.n == 0) context = (tokens){(int32_t *)&rules->prefix, rules->prefix >= 0};
    size_t n = bg_min_size(context.n, rules->max_length);
    if (n == 0) return bg_fail(err, BG_ERR_FORMAT, "a context has no tokens; remove this line");
    out->source = bg_alloc_array(n, sizeof *out->source);
    if (!out->source) return bg_fail_memory(err, n * sizeof *out->source, "token ids");
    memcpy(out->source, context.ids + context.n - n, n * sizeof *out->source);
    out->n_source = n;
    return BG_OK;
}

bg_status bg_requests_make(const bg_request_rules *rules, const bg_document *d,
                           bg_request_group *out, bg_error *err)
{
    *out = (bg_request_group){0};
    size_t space = bg_trailing_space(d->text.data, d->context_size);
    size_t context_size = d->context_size - space;
    tokens context = {0};
    bg_text whole = {0};
    bg_status status = BG_OK;
    if (context_size > 0) status = encode(rules, d->text.data, context_size, true, &context, err);
    if (status == BG_OK && rules->seq2seq) status = set_source(rules, context, out, err);
    for (size_t i = 0; i < d->n_choices && status == BG_OK; i++) {
        size_t skip = rules->seq2seq ? context_size : 0;
        whole.size = 0;
        bg_text_append(&whole, d->text.data + skip, d->context_size - skip);
        bg_text_append(&whole, d->text.data + d->choices[i].begin, d->choices[i].size);
        bg_request *request = &out->requests[i];
        status = whole.failed ? bg_fail_memory(err, whole.size, "a text")
                 : rules->seq2seq
                     ? continuation_request(rules, whole.data, whole.size, request, err)
                     : decoder_request(rules, whole.data, whole.size, context_size, context,
                                       request, err);
        if (status == BG_OK) out->n++;
    }
    bg_text_free(&whole);
    bg_ids_free(context.ids);
    if (status != BG_OK) bg_requests_free(out);
    return status;
}

void bg_requests_free(bg_request_group *group)
{
    for (size_t i = 0; i < group->n; i++) bg_free(group->requests[i].ids);
    bg_free(group->source);
    *group = (bg_request_group){0};
}
