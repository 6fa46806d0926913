/* A growing text buffer. An append that cannot get memory sets `failed` and later ones do nothing,
 * so that a writer checks once, at the end. */
#ifndef BG_CORE_TEXT_H
#define BG_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *data; /* NUL-terminated once anything was appended; NULL before */
    size_t size, capacity;
    bool failed;
} bg_text;

void bg_text_append(bg_text *text, const char *bytes, size_t n);
void bg_text_puts(bg_text *text, const char *string);
void bg_text_printf(bg_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bg_text_free(bg_text *text);

/* Bytes for a sentence: "12.3 GiB", or in MiB what is less than one. Returns out. */
enum { BG_AMOUNT = 24 };
const char *bg_amount(char out[BG_AMOUNT], double bytes);

#endif
