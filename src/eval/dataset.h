/* Labelled sentences. */
#ifndef BG_EVAL_DATASET_H
#define BG_EVAL_DATASET_H

#include "data/table.h"

typedef struct {
    const char *text; /* UTF-8, not NUL-terminated; in the table */
    size_t size;
    int32_t label;
} bg_example;

typedef struct {
    bg_table *table;
    bg_example *examples;
    size_t n;
} bg_dataset;

/* Reads a data file (data/table.h) with the columns "sentence" and "label", the label a whole
 * number from 0 up. At most `limit` examples (0: all). */
bg_status bg_dataset_open(const char *path, int64_t limit, bg_dataset *out, bg_error *err);
void bg_dataset_close(bg_dataset *dataset);

#endif
