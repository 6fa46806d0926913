/* The download of one file: requested in parts over several connections, each written where it
 * belongs; a connection that breaks is replaced and goes on where it stopped.
 *
 * An unfinished download on disk is the file at its full size and, behind it, one byte for each
 * unit (1 MiB; a part is several): 1 where the unit is complete. So a later process goes on with
 * it, in each part behind the units that it begins with. Of the size alone, it is taken for
 * complete: the caller checks it against its checksum in any case. A server that knows no
 * ranges is read from the start, over one connection, and what it breaks off begins anew. */
#ifndef BG_HUB_TRANSFER_H
#define BG_HUB_TRANSFER_H

#include "hub/explain.h"
#include "hub/http.h"

typedef struct {
    const char *name;     /* for errors */
    const char *url;      /* at the endpoint */
    const char *location; /* where that redirects to, or NULL */
    const char *etag;     /* what a redirect of `url` must still name */
    int64_t size;         /* -1: not known */
    const bg_repo *repo;  /* for errors */
} bg_source;

/* Bytes of all files of a pull, for the progress bar. */
typedef struct {
    uint64_t done, total;
} bg_tally;

/* Downloads `source` into the file behind `fd`, which may hold a part of it. When this returns
 * BG_OK the file has its size and nothing else; its content is not checked. *resumed: whether some
 * of it was there before. Adds to tally->done. */
bg_status bg_transfer(bg_http *http, const bg_source *source, int fd, bg_tally *tally,
                      bool *resumed, bg_error *err);

#endif
