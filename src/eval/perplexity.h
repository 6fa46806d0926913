/* Perplexity: exp of the mean negative log-likelihood that a decoder gives the tokens of a text. */
#ifndef BG_EVAL_PERPLEXITY_H
#define BG_EVAL_PERPLEXITY_H

#include "bitgauge/bitgauge.h"
#include "model/model.h"

typedef struct {
    bg_protocol protocol;
    int64_t max_length; /* tokens of a window or line */
    int64_t stride;     /* sliding only */
    int64_t limit;      /* lines: how many at most; 0: all */
    int64_t max_tokens; /* sliding, chunks: how much of the text; 0: all */
} bg_perplexity_options;

typedef struct {
    int64_t tokens; /* scored */
    double nll;     /* sum over them, natural logarithm */
    double value;   /* exp(nll / tokens) */
    /* Seconds that are no part of scoring: of passes made before, for the clock's sake. */
    double untimed;
} bg_perplexity;

/* "lines", "sliding", "chunks". */
const char *bg_protocol_name(bg_protocol protocol);

/* Fills in lengths that are 0: for lines 128 tokens, for the others the model's context, at most
 * 2048, and half of it for the stride. Refuses what does not fit the model. */
bg_status bg_perplexity_complete(const bg_config *config, bg_perplexity_options *options,
                                 bg_error *err);

/* Scores the text of a file:
 *   lines    each line whose length without surrounding white space is over 20 characters, alone,
 *            truncated to max_length tokens; its first token is not scored
 *   sliding  the whole text as one; windows of max_length tokens, each `stride` further, score the
 *            tokens that no earlier window has (the recipe of Hugging Face's documentation,
 *            "Perplexity of fixed-length models")
 *   chunks   windows side by side, each scored alone without its first token
 * Lengths of 0 are completed as above. */
bg_status bg_perplexity_measure(const bg_model *model, const bg_tokenizer *tokenizer,
                                const char *path, const bg_perplexity_options *options,
                                bg_progress progress, bg_perplexity *out, bg_error *err);

#endif
