/* A checkpoint written by torch.save: a zip archive with a pickle of the tensors' names, shapes and
 * strides and one stored entry for each storage; or, until PyTorch 1.6, pickles with the storages
 * behind them. Tensors are used in place; only one whose elements do not lie in row-major order is
 * copied into that order. Several tensors may be of one storage (tied weights). */
#ifndef BG_CHECKPOINT_PYTORCH_H
#define BG_CHECKPOINT_PYTORCH_H

#include "checkpoint/checkpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    bg_tensor *tensors; /* in the order of the state_dict */
    size_t count;
    char *names;  /* the tensors' names, one allocation */
    void *copies; /* the tensors that are not used in place; bg_free_aligned */
    size_t copies_size;
} bg_pytorch;

/* Whether the file begins like one, whichever of the formats; its first bytes are never those of a
 * safetensors file. */
bool bg_pytorch_detect(const uint8_t *data, size_t size);

/* Reads the file whose bytes are at data. `path` names it in errors and is borrowed by the tensors,
 * and so is data. A dictionary of the tensors is looked for at the top, or there under
 * "state_dict", "model" or "module"; what else the file holds is left alone. On failure nothing is
 * left to free. */
bg_status bg_pytorch_parse(const uint8_t *data, size_t size, const char *path, bg_pytorch *out,
                           bg_error *err);
void bg_pytorch_free(bg_pytorch *file);

#endif
