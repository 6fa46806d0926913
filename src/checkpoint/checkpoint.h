/* A model's files: config.json and the tensors, mapped read-only.
 *
 * Layouts: one model.safetensors, or shards listed in model.safetensors.index.json
 * (https://huggingface.co/docs/safetensors); where neither is there, pytorch_model.bin as
 * torch.save writes it, or pytorch_model.bin.index.json. Every offset, shape and name in them is
 * checked before it is used: when bg_checkpoint_open returns BG_OK, every tensor lies inside its
 * file (or is a copy of elements inside it), bytes == product(shape) * element size, and no two in
 * a safetensors file overlap. */
#ifndef BG_CHECKPOINT_CHECKPOINT_H
#define BG_CHECKPOINT_CHECKPOINT_H

#include "core/dtype.h"
#include "core/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BG_MAX_RANK = 8 };

/* One tensor; all memory belongs to the checkpoint. `data` need not be aligned for its type. */
typedef struct {
    const char *name; /* UTF-8 */
    bg_dtype dtype;
    int rank;
    int64_t shape[BG_MAX_RANK]; /* outermost first, row-major */
    const void *data;
    size_t bytes;
    const char *file; /* path of the file it is in, for errors */
    size_t file_index;
} bg_tensor;

typedef struct bg_checkpoint bg_checkpoint;

/* Opens the checkpoint in `directory`, which must hold config.json. */
bg_status bg_checkpoint_open(const char *directory, bg_checkpoint **out, bg_error *err);

/* Opens config.json alone: a checkpoint of no tensors, for runs with random weights. */
bg_status bg_checkpoint_open_config(const char *directory, bg_checkpoint **out, bg_error *err);

/* Opens one tensor file without a configuration (bg_checkpoint_config is then NULL). */
bg_status bg_checkpoint_open_file(const char *path, bg_checkpoint **out, bg_error *err);

/* Whether the directory holds tensors that bg_checkpoint_open would read. False when out of memory,
 * too. */
bool bg_checkpoint_has_weights(const char *directory);

void bg_checkpoint_close(bg_checkpoint *checkpoint);

/* config.json: always an object. Borrowed. NULL after bg_checkpoint_open_file. */
const json_t *bg_checkpoint_config(const bg_checkpoint *checkpoint);
/* The path of config.json, for errors. */
const char *bg_checkpoint_config_path(const bg_checkpoint *checkpoint);
const char *bg_checkpoint_directory(const bg_checkpoint *checkpoint);

size_t bg_checkpoint_count(const bg_checkpoint *checkpoint);
/* The floating-point type that most of the bytes have; `fallback` where there is none. */
bg_dtype bg_checkpoint_dtype(const bg_checkpoint *checkpoint, bg_dtype fallback);
const bg_tensor *bg_checkpoint_tensor(const bg_checkpoint *checkpoint, size_t index);
/* The tensor of that name, or NULL; hashed. */
const bg_tensor *bg_checkpoint_find(const bg_checkpoint *checkpoint, const char *name);

/* The tensor files: bg_tensor.file_index counts these. */
size_t bg_checkpoint_file_count(const bg_checkpoint *checkpoint);
const char *bg_checkpoint_file_path(const bg_checkpoint *checkpoint, size_t index);
size_t bg_checkpoint_file_size(const bg_checkpoint *checkpoint, size_t index);
/* What a safetensors file says of itself: an object of strings, or NULL. Borrowed. */
const json_t *bg_checkpoint_file_metadata(const bg_checkpoint *checkpoint, size_t index);

/* Sum of the tensor files' sizes. */
size_t bg_checkpoint_file_bytes(const bg_checkpoint *checkpoint);

/* Says that all of the tensor's bytes will be read now: they are fetched from the disk at once. */
void bg_checkpoint_prefetch(const bg_checkpoint *checkpoint, const bg_tensor *tensor);

/* Says that the tensor's bytes were converted and will not be read again soon: its pages are given
 * back. It may still be read. */
void bg_checkpoint_release(const bg_checkpoint *checkpoint, const bg_tensor *tensor);

#endif
