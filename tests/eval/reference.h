/* Reading the expected numbers of tests/fixtures/reference.json. */
#ifndef BG_TESTS_EVAL_REFERENCE_H
#define BG_TESTS_EVAL_REFERENCE_H

#include "checkpoint/checkpoint.h"
#include "core/json.h"
#include "load_model.h"
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

/* A progress callback that interrupts when the int at `context` has been counted down. */
static inline bool refuse(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)stage;
    (void)done;
    (void)total;
    return --*(int *)context > 0;
}

#endif
