/* A model from a directory, for tests; ends the test program where it cannot be loaded. */
#ifndef BG_TESTS_LOAD_MODEL_H
#define BG_TESTS_LOAD_MODEL_H

#include "model/model.h"
#include "test.h"

#include <stdlib.h>

static inline bg_model *load_model(bg_backend *backend, const char *directory,
                                   const char *precision)
{
    bg_error problem = {0};
    bg_checkpoint *checkpoint = NULL;
    bg_model *model = NULL;
    bg_status status = bg_checkpoint_open(directory, &checkpoint, &problem);
    if (status == BG_OK)
        status = bg_model_load(backend, checkpoint, false, bg_format_by_name(precision),
                               (bg_progress){0}, &model, &problem);
    bg_checkpoint_close(checkpoint);
    CHECK(status == BG_OK, "%s", problem.message);
    if (status != BG_OK) exit(test_finish());
    return model;
}

#endif
