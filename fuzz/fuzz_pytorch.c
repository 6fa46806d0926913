/* Any bytes as a file of torch.save: the parser refuses them with a message, or hands out tensors
 * that keep every promise of checkpoint.h. A broken promise ends in abort().
 *
 * Random bytes seldom are an archive, so the input's first byte says what it is: a whole file, or
 * the pickle in a sound archive or behind a sound beginning of the old format. */
#include "check_shape.h"
#include "checkpoint/pytorch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool inside(const void *from, size_t bytes, const void *block, size_t size)
{
    uintptr_t at = (uintptr_t)from, start = (uintptr_t)block;
    return at >= start && at - start <= size && bytes <= size - (at - start);
}

static void check_tensor(const bg_pytorch *file, const bg_tensor *t, const uint8_t *data,
                         size_t size)
{
    REQUIRE(inside(t->data, t->bytes, data, size) ||
            inside(t->data, t->bytes, file->copies, file->copies_size));
    check_shape(t);
    REQUIRE(strlen(t->name) < size && strcmp(t->file, "fuzz") == 0);
    /* the sanitizer sees whether the bytes are there */
    const volatile uint8_t *p = t->data;
    for (size_t i = 0; i < t->bytes; i += 1 + t->bytes / 16) (void)p[i];
}

static void check_file(const uint8_t *data, size_t size)
{
    bg_pytorch file;
    bg_error err = {0};
    bg_pytorch_detect(data, size);
    bg_status status = bg_pytorch_parse(data, size, "fuzz", &file, &err);
    if (status != BG_OK) {
        REQUIRE(status == BG_ERR_FORMAT || status == BG_ERR_UNSUPPORTED);
        REQUIRE(err.status == status && strncmp(err.message, "fuzz: ", 6) == 0);
        REQUIRE(!file.tensors && !file.names && !file.copies);
        return;
    }
    REQUIRE(file.count > 0 && file.copies_size <= size + (32 << 20));
    for (size_t i = 0; i < file.count; i++) check_tensor(&file, &file.tensors[i], data, size);
    bg_pytorch_free(&file);
}

/* ---- the pickle in a sound file -------------------------------------------------------------- */

typedef struct {
    uint8_t *data;
    size_t size;
} buffer;

static void put(buffer *b, const void *bytes, size_t n)
{
    if (n) memcpy(b->data + b->size, bytes, n);
    b->size += n;
}

static void put_number(buffer *b, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) b->data[b->size++] = (uint8_t)(value >> 8 * i);
}

static const uint8_t numbers[64] = {1, 2, 3};

/* Storages "0" to "3", of 0, 4, 24 and 64 bytes. */
static const size_t storage_sizes[] = {0, 4, 24, 64};

static void check_in_archive(const uint8_t *pickle, size_t size)
{
    buffer b = {malloc(size + 4096), 0};
    size_t offsets[5], directory;
    REQUIRE(b.data);
    for (int pass = 0; pass < 2; pass++) {
        if (pass) directory = b.size;
        for (size_t i = 0; i < 5; i++) {
            char name[] = "x/data/0", pickle_name[] = "x/data.pkl";
            bool first = i == 0;
            size_t n = first ? size : storage_sizes[i - 1];
            name[7] = (char)('0' + i - 1);
            const char *full = first ? pickle_name : name;
            if (!pass) offsets[i] = b.size;
            put(&b,
                pass ? "PK\1\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                     : "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0",
                pass ? 20 : 18);
            put_number(&b, n, 4);
            put_number(&b, n, 4);
            put_number(&b, strlen(full), 2);
            put_number(&b, 0, 2);
            if (pass) {
                put(&b, "\0\0\0\0\0\0\0\0\0\0", 10);
                put_number(&b, offsets[i], 4);
            }
            put(&b, full, strlen(full));
            if (!pass) put(&b, first ? pickle : numbers, n);
        }
    }
    size_t end = b.size;
    put(&b, "PK\5\6\0\0\0\0\5\0\5\0", 12);
    put_number(&b, end - directory, 4);
    put_number(&b, directory, 4);
    put_number(&b, 0, 2);
    uint8_t *exact = realloc(b.data, b.size);
    REQUIRE(exact);
    check_file(exact, b.size);
    free(exact);
}

static void check_legacy(const uint8_t *rest, size_t size)
{
    static const char beginning[] = "\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
                                    "\x80\x02}X\r\0\0\0little_endian\x88s.";
    buffer b = {malloc(size + sizeof beginning), 0};
    REQUIRE(b.data);
    put(&b, beginning, sizeof beginning - 1);
    put(&b, rest, size);
    uint8_t *exact = realloc(b.data, b.size);
    REQUIRE(exact);
    check_file(exact, b.size);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    switch (*data) {
    case 'a':
        check_in_archive(data + 1, size - 1);
        break;
    case 'l':
        check_legacy(data + 1, size - 1);
        break;
    default:
        check_file(data, size);
    }
    return 0;
}
