/* Labelled sentences. */
#ifndef BG_EVAL_DATASET_H
#define BG_EVAL_DATASET_H

#include "core/error.h"
#include "core/file.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *text; /* UTF-8, not NUL-terminated; in the mapped file */
    size_t size;
    int32_t label;
} bg_example;

typedef struct {
    bg_mapping file;
    bg_example *examples;
    size_t n;
} bg_dataset;

/* Reads tab-separated values: a header line with the columns "sentence" and "label", then one
 * example a line, the label a whole number from 0 up. Nothing is quoted or escaped. At most `limit`
 * examples (0: all). */
bg_status bg_dataset_open(const char *path, int64_t limit, bg_dataset *out, bg_error *err);
void bg_dataset_close(bg_dataset *dataset);

#endif
