/* From a document's text to token ids, as lm-evaluation-harness's `hf` model does it:
 *   - white space at the end of the context goes to the continuation;
 *   - a decoder: context and continuation are tokenized as one text, and the continuation is what
 *     follows as many tokens as the context has alone; an encoder-decoder model: each by itself,
 *     the context for the encoder, the continuation without special tokens for the decoder;
 *   - special tokens are added as the tokenizer does by default, unless the text begins with the
 *     beginning-of-text token; an empty context is that token (or the end-of-text token);
 *   - what does not fit the model is cut at the left. */
#ifndef BG_EVAL_REQUESTS_H
#define BG_EVAL_REQUESTS_H

#include "bitgauge/bitgauge.h"
#include "eval/document.h"
#include "eval/likelihood.h"
#include "model/config.h"

/* Tokens that a model without a limit of positions is given: T5 was trained with as many. */
enum { BG_UNBOUNDED_LENGTH = 512 };

typedef struct {
    const bg_tokenizer *tokenizer;
    bool seq2seq;
    size_t max_length;
    int32_t start;  /* an encoder-decoder model's first decoder token */
    int32_t prefix; /* the beginning-of-text token, or the end-of-text token; -1: none */
    char *prefix_text;
} bg_request_rules;

/* Refuses models that do not predict tokens. */
bg_status bg_request_rules_init(const bg_config *config, const bg_tokenizer *tokenizer,
                                bg_request_rules *out, bg_error *err);
void bg_request_rules_free(bg_request_rules *rules);

bg_status bg_requests_make(const bg_request_rules *rules, const bg_document *document,
                           bg_request_group *out, bg_error *err);
void bg_requests_free(bg_request_group *group);

#endif
