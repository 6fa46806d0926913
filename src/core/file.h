/* Files: read-only mappings, and writes that either finish or leave the old file as it was. */
#ifndef BG_CORE_FILE_H
#define BG_CORE_FILE_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A whole file, mapped read-only. `path` is owned. A zero-sized file maps to data "" and size 0. */
typedef struct {
    const uint8_t *data;
    size_t size;
    char *path;
} bg_mapping;

bg_status bg_map_file(const char *path, bg_mapping *out, bg_error *err);
void bg_unmap(bg_mapping *mapping);

/* Tells the kernel that bytes [offset, offset+size) will all be read now: it reads them from the
 * disk in large pieces, not a few pages for each that is missing. */
void bg_mapping_prefetch(const bg_mapping *mapping, size_t offset, size_t size);

/* Tells the kernel that bytes [offset, offset+size), and what shares a page with them, will not be
 * read again soon, so that a file being converted tensor by tensor does not stay resident beside
 * its converted copy. */
void bg_mapping_release(const bg_mapping *mapping, size_t offset, size_t size);

/* A small text file (at most `limit` bytes) as a NUL-terminated string, released with bg_free. */
bg_status bg_read_text(const char *path, size_t limit, char **text, size_t *size, bg_error *err);

bool bg_file_exists(const char *path);
bool bg_is_directory(const char *path);

/* Joins directory and name with one '/'; released with bg_free, NULL when out of memory. */
char *bg_path_join(const char *directory, const char *name);

/* Writes data to path by way of a temporary file beside it, synced and then renamed over it: a full
 * disk or a crash leaves the file that was there. "-" writes to standard output; a path that is no
 * regular file (/dev/null, a pipe) is written directly. */
bg_status bg_write_file(const char *path, const void *data, size_t size, bg_error *err);

#endif
