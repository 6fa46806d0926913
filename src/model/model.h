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

typedef struct {
    bg_config config;
    bg_backend *backend; /* borrowed */
    bg_format_id precision;
    bg_format_id other; /* format of the matrices that are not quantized: embeddings, heads */
    bg_parameter parameters[BG_ROLE_LAYER_FIRST];
    bg_parameter (*layers)[BG_ROLE_COUNT]; /* (num_hidden_layers); only layer roles are used */

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

/* About how many bytes the weights of a model come to at a precision, scales not counted. */
size_t bg_model_estimate(const bg_config *config, const bg_format *precision);

/* ---- running --------------------------------------------------------------------------------- */

/* Room for running up to max_rows tokens at once, of up to n_slots sequences that grow to
 * max_length. */
typedef struct {
    const bg_model *model;
    size_t max_rows;
    bg_act *hidden, *normed, *qkv, *attended, *inner;
    bg_act *selected; /* rows picked for the head, at most max_selected */
    bg_act *labels;
    size_t max_selected;
    bg_cache *cache;
    int32_t *positions; /* (max_rows) */
} bg_run;

/* max_selected: how many rows bg_run_select may pick. */
bg_status bg_run_create(const bg_model *model, size_t max_rows, size_t n_slots, size_t max_length,
                        size_t max_selected, bg_run **out, bg_error *err);
void bg_run_free(bg_run *run);

/* Runs the tokens `ids` (the rows of all sequences, one after the other) through every layer; the
 * states after the last norm are then in run->hidden. Sequences' first_row must be consecutive. Ids
 * outside the vocabulary and positions beyond the model's are errors. */
bg_status bg_run_forward(bg_run *run, const int32_t *ids, const bg_sequence *sequences,
                         size_t n_sequences, bg_error *err);

/* Copies rows of run->hidden, for the head, to run->selected. */
bg_status bg_run_select(bg_run *run, const size_t *rows, size_t n, bg_error *err);

/* What the output head says of the first n selected rows: their logits (n, vocab_size); the id of
 * each one's largest logit, the lowest on a tie; and -log softmax(logits)[targets[i]] of each. */
bg_status bg_run_logits(bg_run *run, size_t n, float *logits, bg_error *err);
bg_status bg_run_argmax(bg_run *run, size_t n, int32_t *ids, bg_error *err);
bg_status bg_run_score(bg_run *run, size_t n, const int32_t *targets, double *nll, bg_error *err);

/* Classifier: logits (n_sequences, num_labels) of the sequences last run, from their first rows. */
bg_status bg_run_classify(bg_run *run, const bg_sequence *sequences, size_t n_sequences,
                          float *logits, bg_error *err);

#endif
