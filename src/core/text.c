#include "core/text.h"

#include "bitgauge/bitgauge.h"
#include "core/alloc.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static bool reserve(bg_text *text, size_t more)
{
    if (text->failed) return false;
    if (more < text->capacity - text->size && text->data) return true;
    size_t capacity = text->capacity ? text->capacity : 256;
    bool fits = more < SIZE_MAX / 4 - text->size;
    while (fits && capacity <= text->size + more) capacity *= 2;
    char *data = fits ? bg_realloc_array(text->data, capacity, 1) : NULL;
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void bg_text_append(bg_text *text, const char *bytes, size_t n)
{
    if (!reserve(text, n)) return;
    memcpy(text->data + text->size, bytes, n);
    text->size += n;
    text->data[text->size] = '\0';
}

void bg_text_puts(bg_text *text, const char *string)
{
    bg_text_append(text, string, strlen(string));
}

void bg_text_printf(bg_text *text, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n >= 0 && reserve(text, (size_t)n)) {
        vsnprintf(text->data + text->size, (size_t)n + 1, format, again);
        text->size += (size_t)n;
    }
    va_end(again);
}

void bg_text_free(bg_text *text)
{
    bg_free(text->data);
    *text = (bg_text){0};
}

void bg_string_free(char *text)
{
    bg_free(text);
}

const char *bg_amount(char out[BG_AMOUNT], double bytes)
{
    const double gib = bytes / (1 << 30);
    snprintf(out, BG_AMOUNT, "%.1f %s", gib >= 1 ? gib : gib * 1024, gib >= 1 ? "GiB" : "MiB");
    return out;
}
