#include "core/error.h"

#include <stdio.h>
#include <string.h>

/* A message may carry bytes of a hostile file: nothing in it may move the terminal's cursor, and
 * the cut at the end may not leave half a character. */
static void tidy(char *message, size_t capacity)
{
    size_t n = strlen(message);
    if (n + 1 == capacity) {
        while (n > 0 && ((unsigned char)message[n - 1] & 0xC0) == 0x80) n--;
        if (n > 0 && (unsigned char)message[n - 1] >= 0xC0) n--;
        message[n] = '\0';
    }
    for (char *p = message; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F) *p = '?';
}

bg_status bg_fail(bg_error *err, bg_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        tidy(err->message, sizeof err->message);
        err->status = status;
    }
    return status;
}

bg_status bg_error_context(bg_error *err, const char *format, ...)
{
    if (!err) return BG_ERR_INTERNAL;
    char context[sizeof err->message], message[sizeof err->message];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    memcpy(message, err->message, sizeof message);
    size_t used = strlen(context);
    memcpy(err->message, context, used);
    snprintf(err->message + used, sizeof err->message - used, ": %s", message);
    tidy(err->message, sizeof err->message);
    return err->status;
}

bg_status bg_fail_memory(bg_error *err, size_t bytes, const char *what)
{
    return bg_fail(err, BG_ERR_MEMORY,
                   "out of memory: %.1f MiB for %s could not be allocated; free memory, or choose a "
                   "lower precision or a smaller batch",
                   (double)bytes / 1048576.0, what);
}
