/* A model on a device: its weights at one precision, and the forward pass. */
#ifndef BG_MODEL_MODEL_H
#define BG_MODEL_MODEL_H

#include "backend/backend.h"
#include "checkpoint/checkpoint.h"
#include "model/config.h"

#include <stdint.h>

/* A role's tensors in one place of the model; both NULL where it has none. */
typedef struct {
    bg_weight *weight, *bias;
} bg_parameter;

typedef struct bg_model {
    bg_config config;
    bg_backend *backend; /* borrowed */
    bg_format_id precision;
    bg_format_id other; /* format of the matrices that are not quantized: embeddings, heads */
    bool half;          /* activations are rounded to binary16, as LLM.int8() has them */
    /* What reads the source text, or the image; NULL where there is none. Its config is a copy of
     * *config.encoder. */
    struct bg_model *encoder;
    bg_parameter parameters[BG_ROLE_LAYER_FIRST];
    bg_parameter (*layers)[BG_ROLE_COUNT]; /* (num_hidden_layers); only layer roles are used */

    /* Of this model and its encoder: */
    int64_t n_parameters;
    size_t weights_bytes;    /* everything, scales included */
    size_t quantized_bytes;  /* of it, the matrices in `precision` */
    double quantize_seconds; /* of loading, time spent encoding */
} bg_model;

/* Loads every weight of `checkpoint` at a precision, tensor by tensor straight from the file. A
 * tensor that is missing or has another shape than the configuration says is an error that names
 * it. With `random_weights` no tensor is read: weights are drawn, repeatably, from a normal
 * distribution with a deviation of 0.02. The backend must outlive the model. */
bg_status bg_model_load(bg_backend *backend, const bg_checkpoint *checkpoint, bool random_weights,
                        const bg_format *precision, bg_progress progress, bg_model **out,
                        bg_error *err);
void bg_model_free(bg_model *model);

/* About how many bytes the weights of a model come to at a precision, scales included; biases and
 * norms are not counted. */
size_t bg_model_estimate(const bg_config *config, const bg_format *precision);

/* The output head of a model that predicts tokens: a matrix of its own, or the token embedding. */
const bg_parameter *bg_model_head(const bg_model *model);

/* Bytes of the weights that every pass reads, a decoding step's or a classifier's: not those of an
 * encoder, or of what a decoder asks of its states once, and not tables of which a token looks up a
 * row. */
size_t bg_model_read_bytes(const bg_model *model);

/* ---- running --------------------------------------------------------------------------------- */

/* Room for running up to max_rows tokens at once, of up to n_slots sequences that grow to
 * max_length. With an encoder, as much again for what it reads. */
typedef struct bg_run {
    const bg_model *model;
    size_t max_rows, n_slots;
    bool apart;             /* bg_run_separate */
    struct bg_run *encoder; /* NULL where the model has none */
    bg_act *embedded;       /* tokens before PROJECT_IN, or an image's patches */
    bg_act *hidden, *normed, *qkv, *attended, *inner;
    const bg_act *last;    /* of `hidden` and `normed`, where the states after the last norm are */
    bg_act *gathered;      /* rows of `last` picked for PROJECT_OUT */
    bg_act *selected;      /* rows picked for the head, at most max_selected */
    const bg_act *head_in; /* `selected`, or `last` where its first rows are what was picked */
    bg_act *labels;
    size_t max_selected;
    bg_cache *cache;
    bg_weight *rope;    /* cosines and sines for every position */
    int32_t *ids;       /* (max_rows) with image tokens replaced */
    int32_t *positions; /* (max_rows) */
    int32_t *zeros;     /* (max_rows) */
    /* Attention to an encoder: its states as keys and values, and what of them a slot sees. */
    bg_act *cross_kv;
    bg_cache *cross_cache;
    size_t *source_keys;  /* (n_slots) */
    bg_sequence *sources; /* (n_slots) */
    /* An image's states, as wide as hidden, and how many wait for their tokens. */
    bg_act *features;
    size_t n_features;
    size_t *feature_rows; /* (max_rows) where they go */
    float *patches;       /* (encoder's max_rows, patch values) */
    /* What bg_run_choose chose since ids came from the host, in turns: (max_selected) each. */
    bg_ids *chosen[2];
    size_t n_choices, n_chosen; /* how many times, and rows the last time */
} bg_run;

/* max_selected: how many rows bg_run_select may pick. For a model that looks at images, n_slots is
 * also the number of images at once. */
bg_status bg_run_create(const bg_model *model, size_t max_rows, size_t n_slots, size_t max_length,
                        size_t max_selected, bg_run **out, bg_error *err);
void bg_run_free(bg_run *run);

/* Sequences that are run together get what each of them gets alone: LLM.int8()'s outlier columns
 * are then those of a sequence. Until this is called they are those of a batch, as transformers has
 * them. */
void bg_run_separate(bg_run *run);
/* Whether that holds for all of a model's layers. Not at int8 where the selected rows are
 * projected, since those do not say whose they are. */
bool bg_model_separates(const bg_model *model);

/* Encoder-decoders: runs source tokens through the encoder; what each sequence's slot holds in the
 * decoder then attends to them. Before bg_run_forward. */
bg_status bg_run_encode(bg_run *run, const int32_t *ids, const bg_sequence *sequences,
                        size_t n_sequences, bg_error *err);

/* Models that look at images: runs `pixels` (n, channels, size, size) through the vision tower. The
 * image tokens among the ids of the next bg_run_forward then stand for the images' patches, one
 * after the other. */
bg_status bg_run_look(bg_run *run, const float *pixels, size_t n, bg_error *err);

/* Runs the tokens `ids` (the rows of all sequences, one after the other) through every layer; the
 * states after the last norm are then in run->last. Sequences' first_row must be consecutive. Ids
 * outside the vocabulary and positions beyond the model's are errors. NULL: those that were chosen
 * last, which the host need not know. */
bg_status bg_run_forward(bg_run *run, const int32_t *ids, const bg_sequence *sequences,
                         size_t n_sequences, bg_error *err);

/* The same and bg_run_select in one: what else becomes of rows that are not picked after they have
 * been attended to for the last time need not be computed. */
bg_status bg_run_forward_to(bg_run *run, const int32_t *ids, const bg_sequence *sequences,
                            size_t n_sequences, const size_t *rows, size_t n, bg_error *err);

/* Picks rows of run->last for the head; NULL: the first n. They stay until the next pass. */
bg_status bg_run_select(bg_run *run, const size_t *rows, size_t n, bg_error *err);

/* What the output head says of the first n selected rows: their logits (n, vocab_size), and
 * -log softmax(logits)[targets[i]] of each. */
bg_status bg_run_logits(bg_run *run, size_t n, float *logits, bg_error *err);
bg_status bg_run_score(bg_run *run, size_t n, const int32_t *targets, double *nll, bg_error *err);

/* Chooses the token after each of the first n selected rows; it is not waited for. */
bg_status bg_run_choose(bg_run *run, size_t n, const bg_choice *how, bg_error *err);
/* Waits for the first n ids of the last choice, or with `ago` 1 of the one before it, and no more.
 * One that could not be chosen, because a logit is NaN, is -1. */
bg_status bg_run_chosen(bg_run *run, size_t ago, size_t n, int32_t *ids, bg_error *err);

/* Classifier: logits (n_sequences, num_labels) of the sequences last run, from their first rows. */
bg_status bg_run_classify(bg_run *run, const bg_sequence *sequences, size_t n_sequences,
                          float *logits, bg_error *err);

#endif
