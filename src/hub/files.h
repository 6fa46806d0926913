/* Which files of a model's repository are wanted: its configuration, its tokenizer, and one set of
 * weights: safetensors where there are any, else PyTorch's; nothing for other programs. */
#ifndef BG_HUB_FILES_H
#define BG_HUB_FILES_H

#include "core/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Names of files; owned. */
typedef struct {
    char **items;
    size_t n;
} bg_names;
void bg_names_free(bg_names *names);
bg_status bg_names_add(bg_names *names, const char *name, bg_error *err);

/* Tells whether there is a file of that name. */
typedef bool (*bg_file_test)(const void *context, const char *name);

/* The names of the configuration's and the tokenizer's files; ends with NULL. */
extern const char *const bg_model_small_files[];

/* The file that the weights are in, or the index of their shards (*is_index); NULL: neither
 * safetensors nor PyTorch's are there. */
const char *bg_model_weights(bg_file_test has, const void *context, bool *is_index);

/* Appends the shards that the index at `path` names, each once, each name checked. */
bg_status bg_model_shards(const char *path, bg_names *out, bg_error *err);

#endif
