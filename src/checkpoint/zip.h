/* A zip archive whose entries are stored, not compressed (PKWARE's APPNOTE 6.3, zip64 included),
 * read through its central directory. When bg_zip_parse returns BG_OK, every entry's bytes lie in
 * the file, no two entries overlap, and no two have one name. */
#ifndef BG_CHECKPOINT_ZIP_H
#define BG_CHECKPOINT_ZIP_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

enum { BG_ZIP_MAX_ENTRIES = 1 << 21 };

typedef struct {
    const char *name; /* not NUL-terminated */
    size_t name_size;
    const uint8_t *header; /* the local header; its data follow behind name and extra field */
    const uint8_t *data;
    size_t size;
} bg_zip_entry;

typedef struct {
    bg_zip_entry *entries; /* sorted by name; they point into the archive's bytes */
    size_t count;
} bg_zip;

/* `path` names the file in errors. On failure nothing is left to free. */
bg_status bg_zip_parse(const uint8_t *data, size_t size, const char *path, bg_zip *out,
                       bg_error *err);
/* The entry of that name, or NULL. */
const bg_zip_entry *bg_zip_find(const bg_zip *zip, const char *name, size_t name_size);
void bg_zip_free(bg_zip *zip);

#endif
