/* One pass of a batch through a model; shared by the files that run it. */
#ifndef BG_MODEL_PASS_H
#define BG_MODEL_PASS_H

#include "model/model.h"

typedef struct {
    bg_run *run;
    size_t n_rows;
    const bg_sequence *sequences;
    size_t n_sequences;
    size_t layer;
    /* Rows whose last states are wanted (n_wanted); NULL: all that are left. */
    const size_t *wanted;
    size_t n_wanted;
    bg_error *err;
} bg_pass;

/* A linear layer on the pass's rows; its weights, rows and sequences are filled in. */
bg_status bg_pass_layer(const bg_pass *p, const bg_parameter *parameter, bg_linear args);
/* out[:, out_col:] = activation(in W^T + bias) + residual, for the pass's rows; a residual may be
 * NULL. */
bg_status bg_pass_linear(const bg_pass *p, const bg_parameter *parameter, const bg_act *in,
                         bg_activation activation, const bg_act *residual, bg_act *out,
                         size_t out_col);

#endif
