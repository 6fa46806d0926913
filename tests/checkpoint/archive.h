/* Zip archives as torch.save lays them out, or not quite. */
#ifndef BG_TESTS_CHECKPOINT_ARCHIVE_H
#define BG_TESTS_CHECKPOINT_ARCHIVE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    const void *data;
    size_t size;
    /* what may be wrong */
    unsigned method, flags;
    int64_t offset, more; /* added to the local header's offset, and to the size, as said */
    const char *local_name;
    bool is_64; /* sizes and offset are in a zip64 field */
} archive_entry;

typedef struct {
    uint8_t *data; /* of exactly `size` bytes, so that the sanitizer sees a read behind it */
    size_t size;
    size_t directory, end; /* where the central directory and the end record are */
} archive;

static inline void archive_put(archive *a, const void *bytes, size_t n)
{
    uint8_t *data = malloc(a->size + n + 1);
    if (!data) exit(1);
    if (a->size) memcpy(data, a->data, a->size);
    if (n) memcpy(data + a->size, bytes, n);
    free(a->data);
    a->data = data;
    a->size += n;
}

static inline void archive_number(archive *a, uint64_t value, int bytes)
{
    uint8_t p[8];
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(value >> 8 * i);
    archive_put(a, p, (size_t)bytes);
}

static inline void archive_numbers(archive *a, const char *sizes, const uint64_t *values)
{
    for (; *sizes; sizes++) archive_number(a, *values++, *sizes - '0');
}

/* With zip64, the end record is doubled. Released with free(a.data). */
static inline archive archive_make(const archive_entry *entries, size_t n, bool zip64)
{
    archive a = {0};
    uint64_t offsets[64];
    for (size_t i = 0; i < n; i++) {
        const archive_entry *e = &entries[i];
        const char *name = e->local_name ? e->local_name : e->name;
        offsets[i] = a.size;
        archive_numbers(&a, "42222244422",
                        (uint64_t[]){0x04034b50, 0, e->flags, e->method, 0, 0, 0, e->size, e->size,
                                     strlen(name), 0});
        archive_put(&a, name, strlen(name));
        archive_put(&a, e->data, e->size);
    }
    a.directory = a.size;
    for (size_t i = 0; i < n; i++) {
        const archive_entry *e = &entries[i];
        uint64_t size = e->size + (uint64_t)e->more, offset = offsets[i] + (uint64_t)e->offset;
        archive_numbers(&a, "4222222444222224",
                        (uint64_t[]){0x02014b50, 0, 0, e->flags, e->method, 0, 0, 0,
                                     e->is_64 ? UINT32_MAX : size, e->is_64 ? UINT32_MAX : size,
                                     strlen(e->name), e->is_64 ? 28 : 0, 0, 0, 0, 0});
        archive_number(&a, e->is_64 ? UINT32_MAX : offset, 4);
        archive_put(&a, e->name, strlen(e->name));
        if (e->is_64) archive_numbers(&a, "22888", (uint64_t[]){0x0001, 24, size, size, offset});
    }
    uint64_t directory_size = a.size - a.directory;
    if (zip64) {
        uint64_t at = a.size;
        archive_numbers(
            &a, "4822448888",
            (uint64_t[]){0x06064b50, 44, 0, 0, 0, 0, n, n, directory_size, a.directory});
        archive_numbers(&a, "4484", (uint64_t[]){0x07064b50, 0, at, 1});
    }
    a.end = a.size;
    archive_numbers(&a, "42222442",
                    (uint64_t[]){0x06054b50, 0, 0, zip64 ? 0xFFFF : n, zip64 ? 0xFFFF : n,
                                 zip64 ? UINT32_MAX : directory_size,
                                 zip64 ? UINT32_MAX : a.directory, 0});
    return a;
}

#endif
