/* Memory that is handed out piece by piece and given back all at once, up to a limit, so that a
 * small file that stands for endless values ends in an error. */
#ifndef BG_CORE_POOL_H
#define BG_CORE_POOL_H

#include "core/error.h"

#include <stddef.h>

typedef struct {
    struct bg_pool_block *last;
    size_t total, limit; /* bytes asked of the heap */
} bg_pool;

/* `count` times `size` bytes, zeroed, aligned for any value; `what` names them in errors. */
bg_status bg_pool_alloc(bg_pool *pool, size_t count, size_t size, const char *what, void **out,
                        bg_error *err);
/* A NUL-terminated copy of n bytes. */
bg_status bg_pool_copy(bg_pool *pool, const char *bytes, size_t n, const char *what, char **out,
                       bg_error *err);
void bg_pool_free(bg_pool *pool);

#endif
