/* Any bytes as a config.json: refused with a message, or a description of a model. */
#include "core/json.h"
#include "model/config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = NULL;
    bg_error err = {0};
    bg_status status = bg_json_parse((const char *)data, size, "fuzz", &json, &err);
    if (status == BG_OK) {
        bg_config config;
        if (json_is_object(json)) {
            status = bg_config_parse(json, "fuzz", &config, &err);
            bg_config_free(&config);
        }
        json_decref(json);
    }
    /* Whatever is wrong is wrong with the file, and is said. */
    if (status != BG_OK && (err.status != status || !*err.message || status == BG_ERR_INTERNAL))
        abort();
    return 0;
}
