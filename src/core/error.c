#include "core/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the well-formed UTF-8 sequence at p, or 0; reads no further than its NUL. */
static int sequence_length(const unsigned char *p)
{
    int n = p[0] < 0x80   ? 1
            : p[0] < 0xC2 ? 0
            : p[0] < 0xE0 ? 2
            : p[0] < 0xF0 ? 3
            : p[0] < 0xF5 ? 4
                          : 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    bool overlong = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xF0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xED && p[1] >= 0xA0;
    bool too_large = p[0] == 0xF4 && p[1] >= 0x90;
    return overlong || surrogate || too_large ? 0 : n;
}

/* A message may carry bytes of a hostile file: nothing in it may move the terminal's cursor (C0 and
 * C1 control characters), all of it must be UTF-8 (it ends up in JSON), and the cut at the end may
 * not leave half a character. */
static void tidy(char *message, size_t capacity)
{
    unsigned char *p = (unsigned char *)message, *limit = p + capacity - 1;
    while (*p) {
        int n = sequence_length(p);
        if (n == 0 && limit - p < 4 && *p >= 0xC2 && strlen(message) + 1 == capacity) {
            *p = '\0';
        } else if (n == 0 || (n == 1 && (*p < 0x20 || *p == 0x7F))) {
            *p++ = '?';
        } else if (n == 2 && p[0] == 0xC2 && p[1] < 0xA0) {
            *p++ = '?';
            *p++ = '?';
        } else {
            p += n;
        }
    }
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
    /* The old message moves up behind the context; what no longer fits is cut. */
    char message[sizeof err->message];
    memcpy(message, err->message, sizeof message);
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message - 2, format, args);
    va_end(args);
    strcat(err->message, ": ");
    size_t used = strlen(err->message);
    memcpy(err->message + used, message, sizeof err->message - used);
    err->message[sizeof err->message - 1] = '\0';
    tidy(err->message, sizeof err->message);
    return err->status;
}

bg_status bg_fail_memory(bg_error *err, size_t bytes, const char *what)
{
    return bg_fail(
        err, BG_ERR_MEMORY,
        "out of memory: %.1f MiB for %s could not be allocated; free memory, or choose a "
        "lower precision or a smaller batch",
        (double)bytes / 1048576.0, what);
}
