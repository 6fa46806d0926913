/* Reading the expected numbers of tests/fixtures/reference.json. */
#ifndef BG_TESTS_EVAL_REFERENCE_H
#define BG_TESTS_EVAL_REFERENCE_H

#include "checkpoint/checkpoint.h"
#include "core/json.h"
#include "model/model.h"
#include "quant/format.h"
#include "test.h"

#include <stdarg.h>
#include <stdlib.h>

static bg_error err;

#define OK(call) CHECK((call) == BG_OK, "%s", err.message)

/* The number at a path of keys; ends the test program where there is none. */
static inline double reference(const json_t *root, ...)
{
    va_list keys;
    va_start(keys, root);
    for (const char *key; (key = va_arg(keys, const char *));) {
        root = json_object_get(root, key);
        if (!root) {
            printf("reference: no key %s\n", key);
            exit(1);
        }
    }
    va_end(keys);
    return json_number_value(root);
}

static inline bg_model *load_model(bg_backend *backend, const char *directory,
                                   const char *precision)
{
    bg_checkpoint *checkpoint;
    bg_model *model = NULL;
    OK(bg_checkpoint_open(directory, &checkpoint, &err));
    if (!checkpoint) exit(1);
    OK(bg_model_load(backend, checkpoint, false, bg_format_by_name(precision), (bg_progress){0},
                     &model, &err));
    bg_checkpoint_close(checkpoint);
    if (!model) exit(1);
    return model;
}

#endif
