/* Any bytes as a safetensors file: the parser refuses them with a message, or hands out tensors
 * that keep every promise of checkpoint.h. A broken promise ends in abort(). */
#include "check_shape.h"
#include "checkpoint/safetensors.h"
#include "core/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void check_tensor(const bg_tensor *t, const uint8_t *data, size_t size)
{
    const uint8_t *from = t->data;
    REQUIRE(from >= data && from <= data + size && t->bytes <= (size_t)(data + size - from));
    check_shape(t);
    REQUIRE(strlen(t->name) < size);
}

static void check_file(const uint8_t *data, size_t size)
{
    bg_safetensors file;
    bg_error err = {0};
    bg_status status = bg_safetensors_parse(data, size, "fuzz", &file, &err);
    if (status != BG_OK) {
        REQUIRE(status == BG_ERR_FORMAT || status == BG_ERR_UNSUPPORTED);
        REQUIRE(err.status == status && strncmp(err.message, "fuzz: ", 6) == 0);
        return;
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
}

/* ---- a file drawn from the input ------------------------------------------------------------- */

/* Random bytes seldom are JSON, so the input is also read as a row of choices that make up a header
 * which is nearly right: each number may be off, but most are not. */
typedef struct {
    const uint8_t *data;
    size_t size;
} choices;

static unsigned choose(choices *from, unsigned n)
{
    if (!from->size) return 0;
    from->size--;
    return *from->data++ % n;
}

/* Mostly 0. */
static int64_t slip(choices *from)
{
    static const int64_t slips[] = {0, 0, 0, 0, 0, 0, 0, 1, -1, 7, INT32_MAX, INT64_MIN / 2};
    return slips[choose(from, sizeof slips / sizeof *slips)];
}

static int64_t draw_tensor(choices *from, bg_text *header, unsigned index, int64_t at)
{
    static const int64_t lengths[] = {
        1, 2, 3, 1, 2, 4, 0, 5, -1, (int64_t)1 << 32, (int64_t)1 << 62};
    static const char *const unknown[] = {"F8_E5M2", "U64", ""};
    unsigned type = choose(from, BG_DTYPE_COUNT + 3), rank = choose(from, BG_MAX_RANK + 2);
    bool known = type < BG_DTYPE_COUNT;
    uint64_t bytes = known ? bg_dtypes[type].size : 1;
    /* now and then the first one's name for the second time */
    bg_text_printf(header, "%s\"t%u\":{\"dtype\":\"%s\",\"shape\":[", index ? "," : "",
                   choose(from, 30) ? index : 0,
                   known ? bg_dtypes[type].safetensors : unknown[type - BG_DTYPE_COUNT]);
    for (unsigned i = 0; i < rank; i++) {
        int64_t length = lengths[choose(from, sizeof lengths / sizeof *lengths)];
        bytes *= (uint64_t)length;
        bg_text_printf(header, "%s%lld", i ? "," : "", (long long)length);
    }
    int64_t begin = (int64_t)((uint64_t)at + (uint64_t)slip(from));
    int64_t end = (int64_t)((uint64_t)begin + bytes + (uint64_t)slip(from));
    bg_text_printf(header, "],\"data_offsets\":[%lld,%lld]}", (long long)begin, (long long)end);
    return end;
}

static void check_drawn(choices from)
{
    bg_text file = {0};
    int64_t at = 0;
    unsigned n = choose(&from, 6);
    bg_text_append(&file, "\0\0\0\0\0\0\0", 8);
    bg_text_puts(&file, "{");
    for (unsigned i = 0; i < n; i++) at = draw_tensor(&from, &file, i, at);
    bg_text_puts(&file, "}");
    uint64_t length = file.size - 8 + (uint64_t)slip(&from);
    for (int i = 0; i < 8; i++) file.data[i] = (char)(length >> 8 * i);
    at = (int64_t)((uint64_t)at + (uint64_t)slip(&from));
    for (; at > 0 && at < 65536 && file.size < 65536; at--) bg_text_puts(&file, "x");
    /* a copy of just the size, so that the sanitizer sees a read behind it */
    uint8_t *exact = malloc(file.size);
    REQUIRE(exact && !file.failed);
    memcpy(exact, file.data, file.size);
    check_file(exact, file.size);
    free(exact);
    bg_text_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_file(data, size);
    check_drawn((choices){data, size});
    return 0;
}
