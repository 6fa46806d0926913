#include "checkpoint/zip.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN "; the file is damaged or cut short: download it again"

/* Records of the format: their signatures, and their sizes without what varies. */
enum {
    LOCAL_HEADER = 0x04034b50,
    LOCAL_HEADER_SIZE = 30,
    CENTRAL_HEADER = 0x02014b50,
    CENTRAL_HEADER_SIZE = 46,
    END = 0x06054b50,
    END_SIZE = 22,
    END_64 = 0x06064b50,
    END_64_SIZE = 56,
    LOCATOR_64 = 0x07064b50,
    LOCATOR_64_SIZE = 20,
    EXTRA_64 = 0x0001,
    ENCRYPTED = 1, /* a flag */
    MAX_COMMENT = 0xFFFF,
};

typedef struct {
    const uint8_t *data;
    size_t size;
    const char *path;
    bg_error *err;
    size_t directory, directory_size, count; /* the central directory */
} archive;

static uint64_t get(const uint8_t *p, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | p[i];
    return value;
}

static bg_status damaged(const archive *a, const char *what, size_t offset)
{
    return bg_fail(a->err, BG_ERR_FORMAT, "%s: zip archive: %s at byte %zu" AGAIN, a->path, what,
                   offset);
}

/* ---- the central directory's place ----------------------------------------------------------- */

/* The end record is the last in the file but for a comment, whose length it gives. */
static bool find_end(const archive *a, size_t *end)
{
    if (a->size < END_SIZE) return false;
    size_t first = a->size - END_SIZE, last = first > MAX_COMMENT ? first - MAX_COMMENT : 0;
    for (size_t at = first;; at--) {
        if (get(a->data + at, 4) == END && get(a->data + at + 20, 2) == first - at) {
            *end = at;
            return true;
        }
        if (at == last) return false;
    }
}

static bg_status find_directory(archive *a)
{
    size_t end;
    if (!find_end(a, &end))
        return bg_fail(a->err, BG_ERR_FORMAT,
                       "%s: zip archive: there is no end record in the %zu bytes" AGAIN, a->path,
                       a->size);
    const uint8_t *p = a->data + end;
    uint64_t disks = get(p + 4, 2) | get(p + 6, 2), count = get(p + 10, 2);
    uint64_t size = get(p + 12, 4), offset = get(p + 16, 4);
    size_t limit = end;
    if (end >= LOCATOR_64_SIZE && get(p - LOCATOR_64_SIZE, 4) == LOCATOR_64) {
        const uint8_t *locator = p - LOCATOR_64_SIZE;
        uint64_t at = get(locator + 8, 8);
        if (end < LOCATOR_64_SIZE + END_64_SIZE || at > end - LOCATOR_64_SIZE - END_64_SIZE ||
            get(a->data + at, 4) != END_64)
            return damaged(a, "the zip64 locator points to no end record,", end - LOCATOR_64_SIZE);
        limit = (size_t)at;
        p = a->data + at;
        disks = get(p + 16, 4) | get(p + 20, 4);
        count = get(p + 32, 8);
        size = get(p + 40, 8);
        offset = get(p + 48, 8);
    }
    if (disks != 0) return damaged(a, "the archive is one of several volumes,", end);
    if (offset > limit || size > limit - offset)
        return damaged(a, "the central directory lies outside the file, by the end record", end);
    if (count > size / CENTRAL_HEADER_SIZE)
        return damaged(a, "more entries than fit the central directory", end);
    if (count > BG_ZIP_MAX_ENTRIES)
        return bg_fail(a->err, BG_ERR_UNSUPPORTED,
                       "%s: zip archive: %llu entries are more than %d; split the checkpoint into "
                       "shards",
                       a->path, (unsigned long long)count, (int)BG_ZIP_MAX_ENTRIES);
    a->directory = (size_t)offset;
    a->directory_size = (size_t)size;
    a->count = (size_t)count;
    return BG_OK;
}

/* ---- entries --------------------------------------------------------------------------------- */

/* Fields that do not fit 32 bits are all ones there, and stand in the zip64 extra field in this
 * order. */
static bool read_extra_64(const uint8_t *extra, size_t size, uint64_t *const fields[3])
{
    bool wanted = false;
    for (int i = 0; i < 3; i++) wanted |= *fields[i] == UINT32_MAX;
    if (!wanted) return true;
    while (size >= 4) {
        size_t id = get(extra, 2), length = get(extra + 2, 2);
        if (length > size - 4) return false;
        extra += 4;
        size -= 4;
        if (id == EXTRA_64) {
            for (int i = 0; i < 3; i++) {
                if (*fields[i] != UINT32_MAX) continue;
                if (length < 8) return false;
                *fields[i] = get(extra, 8);
                extra += 8;
                length -= 8;
            }
            return true;
        }
        extra += length;
        size -= length;
    }
    return true; /* then it is 4 GiB less one byte */
}

static bg_status read_local_header(const archive *a, uint64_t at, bg_zip_entry *entry)
{
    size_t limit = a->directory; /* entries lie before the central directory */
    if (at > limit || limit - at < LOCAL_HEADER_SIZE || get(a->data + at, 4) != LOCAL_HEADER)
        return bg_fail(a->err, BG_ERR_FORMAT,
                       "%s: zip entry \"%.*s\": there is no local header at byte %llu" AGAIN,
                       a->path, (int)bg_min_size(entry->name_size, 200), entry->name,
                       (unsigned long long)at);
    const uint8_t *p = a->data + at;
    size_t name_size = get(p + 26, 2), head = LOCAL_HEADER_SIZE + name_size + get(p + 28, 2);
    if (head > limit - at || entry->size > limit - at - head)
        return bg_fail(a->err, BG_ERR_FORMAT,
                       "%s: zip entry \"%.*s\": its %zu bytes at byte %llu end behind byte %zu, "
                       "where the central directory begins" AGAIN,
                       a->path, (int)bg_min_size(entry->name_size, 200), entry->name, entry->size,
                       (unsigned long long)at, limit);
    if (name_size != entry->name_size || memcmp(p + LOCAL_HEADER_SIZE, entry->name, name_size) != 0)
        return bg_fail(a->err, BG_ERR_FORMAT,
                       "%s: zip entry \"%.*s\": its local header at byte %llu has another "
                       "name" AGAIN,
                       a->path, (int)bg_min_size(entry->name_size, 200), entry->name,
                       (unsigned long long)at);
    entry->header = p;
    entry->data = p + head;
    return BG_OK;
}

/* Reads the central header at *at and moves *at behind it. */
static bg_status read_entry(const archive *a, size_t *at, bg_zip_entry *entry)
{
    size_t left = a->directory + a->directory_size - *at;
    const uint8_t *p = a->data + *at;
    if (left < CENTRAL_HEADER_SIZE || get(p, 4) != CENTRAL_HEADER)
        return damaged(a, "there is no central header", *at);
    size_t name_size = get(p + 28, 2), extra_size = get(p + 30, 2);
    size_t whole = CENTRAL_HEADER_SIZE + name_size + extra_size + get(p + 32, 2);
    if (whole > left) return damaged(a, "a central header is cut short", *at);
    unsigned flags = (unsigned)get(p + 8, 2), method = (unsigned)get(p + 10, 2);
    uint64_t packed = get(p + 20, 4), size = get(p + 24, 4), offset = get(p + 42, 4);
    if (!read_extra_64(p + CENTRAL_HEADER_SIZE + name_size, extra_size,
                       (uint64_t *const[]){&size, &packed, &offset}))
        return damaged(a, "a zip64 field is cut short", *at);
    *entry = (bg_zip_entry){.name = (const char *)p + CENTRAL_HEADER_SIZE, .name_size = name_size};
    const int shown = (int)bg_min_size(name_size, 200);
    if (flags & ENCRYPTED)
        return bg_fail(a->err, BG_ERR_UNSUPPORTED,
                       "%s: zip entry \"%.*s\" is encrypted; save the checkpoint again with "
                       "torch.save",
                       a->path, shown, entry->name);
    if (method != 0)
        return bg_fail(a->err, BG_ERR_UNSUPPORTED,
                       "%s: zip entry \"%.*s\" is compressed (method %u), which torch.save never "
                       "does; unpack the archive and zip it with -0, or save the checkpoint again",
                       a->path, shown, entry->name, method);
    if (packed != size || size > a->size)
        return bg_fail(a->err, BG_ERR_FORMAT,
                       "%s: zip entry \"%.*s\" is stored, but has %llu bytes of %llu" AGAIN,
                       a->path, shown, entry->name, (unsigned long long)packed,
                       (unsigned long long)size);
    entry->size = (size_t)size;
    *at += whole;
    return read_local_header(a, offset, entry);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int compare_names(const char *x, size_t x_size, const char *y, size_t y_size)
{
    int order = memcmp(x, y, bg_min_size(x_size, y_size));
    if (order) return order;
    return x_size < y_size ? -1 : x_size > y_size;
}

static int by_name(const void *x, const void *y)
{
    const bg_zip_entry *a = x, *b = y;
    return compare_names(a->name, a->name_size, b->name, b->name_size);
}

static int by_place(const void *x, const void *y)
{
    const bg_zip_entry *a = x, *b = y;
    return a->header < b->header ? -1 : a->header > b->header;
}

static bg_status two_entries(const archive *a, const bg_zip_entry *entry, const char *what,
                             const bg_zip_entry *other)
{
    return bg_fail(a->err, BG_ERR_FORMAT, "%s: zip entry \"%.*s\" %s \"%.*s\"" AGAIN, a->path,
                   (int)bg_min_size(entry->name_size, 200), entry->name, what,
                   (int)bg_min_size(other->name_size, 200), other->name);
}

static bg_status check_entries(const archive *a, bg_zip *zip)
{
    bg_zip_entry *e = zip->entries;
    qsort(e, zip->count, sizeof *e, by_place);
    for (size_t i = 1; i < zip->count; i++)
        if (e[i].header < e[i - 1].data + e[i - 1].size)
            return two_entries(a, &e[i], "overlaps", &e[i - 1]);
    qsort(e, zip->count, sizeof *e, by_name);
    for (size_t i = 1; i < zip->count; i++)
        if (by_name(&e[i - 1], &e[i]) == 0)
            return two_entries(a, &e[i], "has the name of another,", &e[i - 1]);
    return BG_OK;
}

bg_status bg_zip_parse(const uint8_t *data, size_t size, const char *path, bg_zip *out,
                       bg_error *err)
{
    archive a = {.data = data, .size = size, .path = path, .err = err};
    *out = (bg_zip){0};
    BG_TRY(find_directory(&a));
    bg_zip zip = {.entries = bg_alloc_array(a.count, sizeof *zip.entries), .count = a.count};
    if (!zip.entries) return bg_fail_memory(err, a.count * sizeof *zip.entries, "zip entries");
    bg_status status = BG_OK;
    size_t at = a.directory;
    for (size_t i = 0; i < a.count && status == BG_OK; i++)
        status = read_entry(&a, &at, &zip.entries[i]);
    if (status == BG_OK) status = check_entries(&a, &zip);
    if (status != BG_OK)
        bg_zip_free(&zip);
    else
        *out = zip;
    return status;
}

const bg_zip_entry *bg_zip_find(const bg_zip *zip, const char *name, size_t name_size)
{
    bg_zip_entry wanted = {.name = name, .name_size = name_size};
    if (!zip->count) return NULL;
    return bsearch(&wanted, zip->entries, zip->count, sizeof wanted, by_name);
}

void bg_zip_free(bg_zip *zip)
{
    bg_free(zip->entries);
    *zip = (bg_zip){0};
}
