/* Errors with context: every function that can fail returns a bg_status and fills a bg_error with
 * one sentence that says what, where, and what to do about it. */
#ifndef BG_CORE_ERROR_H
#define BG_CORE_ERROR_H

#include "bitgauge/bitgauge.h" /* bg_status, bg_error */

#include <stdarg.h>

/* Fills `err` (which may be NULL) and returns `status`, so that callers write
 *     return bg_fail(err, BG_ERR_FORMAT, "%s: header is %zu bytes ...", path, n);
 * A message that does not fit is cut at a UTF-8 boundary. Control characters in it (a hostile file
 * may name its tensors anything) are replaced by '?'. */
bg_status bg_fail(bg_error *err, bg_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the message already in `err`; returns its status. */
bg_status bg_error_context(bg_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The out-of-memory error for `bytes` wanted by `what`. */
bg_status bg_fail_memory(bg_error *err, size_t bytes, const char *what);

#define BG_TRY(expression)                                                                         \
    do {                                                                                           \
        bg_status bg_try_status_ = (expression);                                                   \
        if (bg_try_status_ != BG_OK) return bg_try_status_;                                        \
    } while (0)

#endif
