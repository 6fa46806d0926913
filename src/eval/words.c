#include "eval/words.h"

#include <utf8proc.h>

bool bg_is_space(int32_t c)
{
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP || (c >= 9 && c <= 13) || (c >= 28 && c <= 31) ||
           c == 0x85;
}

/* The character at the beginning of a text; *length is its bytes. -1 where it is invalid. */
static int32_t decode(const char *text, size_t size, size_t *length)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &c);
    *length = n > 0 ? (size_t)n : 1;
    return n > 0 ? c : -1;
}

bool bg_is_utf8(const char *text, size_t size)
{
    size_t length;
    for (size_t at = 0; at < size; at += length)
        if (decode(text + at, size - at, &length) < 0) return false;
    return true;
}

size_t bg_leading_space(const char *text, size_t size)
{
    size_t at = 0, length;
    while (at < size) {
        int32_t c = decode(text + at, size - at, &length);
        if (c < 0 || !bg_is_space(c)) break;
        at += length;
    }
    return at;
}

size_t bg_trailing_space(const char *text, size_t size)
{
    size_t end = size;
    while (end > 0) {
        size_t begin = end - 1, length;
        while (begin > 0 && end - begin < 4 && ((unsigned char)text[begin] & 0xC0) == 0x80) begin--;
        int32_t c = decode(text + begin, end - begin, &length);
        if (c < 0 || length != end - begin || !bg_is_space(c)) break;
        end = begin;
    }
    return size - end;
}

size_t bg_count_characters(const char *text, size_t size)
{
    size_t count = 0, length;
    for (size_t at = 0; at < size; at += length, count++) decode(text + at, size - at, &length);
    return count;
}
