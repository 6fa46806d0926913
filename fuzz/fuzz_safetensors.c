/* Any bytes as a safetensors file: the parser refuses them with a message, or hands out tensors
 * that keep every promise of checkpoint.h. A broken promise ends in abort(). */
#include "checkpoint/safetensors.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) abort();                                                                 \
    } while (0)

static void check_tensor(const bg_tensor *t, const uint8_t *data, size_t size)
{
    const uint8_t *from = t->data;
    REQUIRE(from >= data && from <= data + size && t->bytes <= (size_t)(data + size - from));
    REQUIRE(t->rank >= 0 && t->rank <= BG_MAX_RANK && t->dtype >= 0 && t->dtype < BG_DTYPE_COUNT);
    unsigned __int128 bytes = bg_dtypes[t->dtype].size;
    for (int i = 0; i < t->rank; i++) {
        REQUIRE(t->shape[i] >= 0);
        bytes *= (unsigned __int128)t->shape[i];
        REQUIRE(bytes <= SIZE_MAX);
    }
    REQUIRE(bytes == t->bytes);
    REQUIRE(strlen(t->name) < size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bg_safetensors file;
    bg_error err = {0};
    bg_status status = bg_safetensors_parse(data, size, "fuzz", &file, &err);
    if (status != BG_OK) {
        REQUIRE(status == BG_ERR_FORMAT || status == BG_ERR_UNSUPPORTED);
        REQUIRE(err.status == status && strncmp(err.message, "fuzz: ", 6) == 0);
        return 0;
    }
    const uint8_t *end = NULL;
    for (size_t i = 0; i < file.count; i++) {
        check_tensor(&file.tensors[i], data, size);
        const uint8_t *from = file.tensors[i].data;
        REQUIRE(!end || from == end);
        end = from + file.tensors[i].bytes;
    }
    REQUIRE(!end || end == data + size);
    bg_safetensors_free(&file);
    return 0;
}
