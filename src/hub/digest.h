/* The check of a blob against its name: the SHA-256 of a large file's content, or the SHA-1 that
 * git gives a small one ("blob SIZE\0" before the content). */
#ifndef BG_HUB_DIGEST_H
#define BG_HUB_DIGEST_H

#include "core/error.h"

/* Called with how many bytes were read so far; another status than BG_OK ends the work. */
typedef bg_status (*bg_digest_progress)(void *context, uint64_t done, bg_error *err);

/* *equal: whether the file behind `fd`, read from its start, has the digest `etag` (40 or 64
 * hexadecimal digits). */
bg_status bg_digest_check(int fd, const char *etag, const char *name, bg_digest_progress progress,
                          void *context, bool *equal, bg_error *err);

#endif
