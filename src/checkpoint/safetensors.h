/* One safetensors file (https://huggingface.co/docs/safetensors): an unsigned 64-bit little-endian
 * header length, a JSON header { name: {"dtype", "shape", "data_offsets": [begin, end)} }, and one
 * byte buffer that the tensors fill from end to end. */
#ifndef BG_CHECKPOINT_SAFETENSORS_H
#define BG_CHECKPOINT_SAFETENSORS_H

#include "checkpoint/checkpoint.h"

#include <stddef.h>
#include <stdint.h>

enum {
    BG_SAFETENSORS_MAX_HEADER = 100 * 1000 * 1000, /* the reference implementation's limit */
    BG_SAFETENSORS_MAX_TENSORS = 1 << 20,
};

typedef struct {
    bg_tensor *tensors; /* in the order of their bytes; data points into the file's bytes */
    size_t count;
    char *names;      /* the tensors' names, one allocation */
    json_t *metadata; /* "__metadata__", an object of strings; NULL where there is none */
} bg_safetensors;

/* Reads the file whose bytes are at data; nothing is copied but names and metadata. `path` names it
 * in errors and is borrowed by the tensors, and so is data. On failure nothing is left to free. */
bg_status bg_safetensors_parse(const uint8_t *data, size_t size, const char *path,
                               bg_safetensors *out, bg_error *err);
void bg_safetensors_free(bg_safetensors *file);

#endif
