/* Log-likelihoods of continuations, many at a time. */
#ifndef BG_EVAL_LIKELIHOOD_H
#define BG_EVAL_LIKELIHOOD_H

#include "eval/document.h"
#include "model/model.h"

/* Tokens that a decoder is given, all but the last, and of which the last `scored` are predicted:
 * each from all before it. */
typedef struct {
    int32_t *ids; /* (n), n >= 2 */
    size_t n;
    size_t scored; /* in [1, n) */
    /* filled in by bg_likelihood_run: */
    double nll;  /* -log p of the scored tokens together */
    bool greedy; /* each of them is the likeliest token where it stands */
} bg_request;

/* The requests of one document: alternatives that mostly begin with the same tokens. */
typedef struct {
    int32_t *source; /* (n_source) what the encoder of an encoder-decoder model reads; else NULL */
    size_t n_source;
    bg_request requests[BG_MOST_CHOICES];
    size_t n;
} bg_request_group;

typedef struct {
    /* Groups side by side. What the requests of a group have in common is then run once. 0: each
     * distinct input is run by itself from its first token. At LLM.int8() with outlier columns each
     * is run from its first token in any case, since all rows of a text decide which they are. The
     * figures differ by rounding alone: sums of floats may be taken in another order. */
    size_t batch;
    bool greedy; /* fill that in, too */
} bg_likelihood_options;

/* Runs all requests. Long ones come first; sequences are packed without padding. `stage` is what
 * progress is called; its unit is the request. */
bg_status bg_likelihood_run(const bg_model *model, bg_request_group *groups, size_t n,
                            const bg_likelihood_options *options, const char *stage,
                            bg_progress progress, bg_error *err);

#endif
