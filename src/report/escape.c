/* Strings made safe for each format. */
#include "report/format.h"

#include <string.h>
#include <utf8proc.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* One code point of text[0..n), n > 0: its length in bytes, and in *point the code point, or -1
 * for a byte that is no UTF-8. */
static size_t next_point(const char *text, size_t n, utf8proc_int32_t *point)
{
    utf8proc_ssize_t length =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, point);
    if (length > 0) return (size_t)length;
    *point = -1;
    return 1;
}

static bool is_control(utf8proc_int32_t point)
{
    return point < 0x20 || (point >= 0x7F && point < 0xA0);
}

/* Characters that reorder or hide the text around them. */
static bool is_directional(utf8proc_int32_t point)
{
    return (point >= 0x202A && point <= 0x202E) || (point >= 0x2066 && point <= 0x2069) ||
           point == 0x200E || point == 0x200F || point == 0x061C || point == 0x2028 ||
           point == 0x2029 || point == 0xFEFF;
}

void bg_put_html_n(bg_text *out, const char *text, size_t n)
{
    while (n) {
        utf8proc_int32_t point;
        size_t length = next_point(text, n, &point);
        switch (point) {
        case '&':
            bg_text_puts(out, "&amp;");
            break;
        case '<':
            bg_text_puts(out, "&lt;");
            break;
        case '>':
            bg_text_puts(out, "&gt;");
            break;
        case '"':
            bg_text_puts(out, "&quot;");
            break;
        case '\'':
            bg_text_puts(out, "&#39;");
            break;
        case '\n':
        case '\t':
            bg_text_append(out, text, 1);
            break;
        default:
            if (is_control(point) || is_directional(point))
                bg_text_puts(out, replacement);
            else
                bg_text_append(out, text, length);
        }
        text += length;
        n -= length;
    }
}

void bg_put_html(bg_text *out, const char *text)
{
    bg_put_html_n(out, text, strlen(text));
}

void bg_put_markdown(bg_text *out, const char *text)
{
    size_t n = strlen(text);
    while (n) {
        utf8proc_int32_t point;
        size_t length = next_point(text, n, &point);
        if (point == '\n')
            bg_text_puts(out, "↵ ");
        else if (point == '\t')
            bg_text_puts(out, " ");
        else if (is_control(point) || is_directional(point))
            bg_text_puts(out, replacement);
        else if (point == '<')
            bg_text_puts(out, "&lt;");
        else if (point == '>')
            bg_text_puts(out, "&gt;");
        else if (point == '&')
            bg_text_puts(out, "&amp;");
        else {
            if (point < 0x80 && strchr("\\`*_[]|#~!$", (int)point)) bg_text_puts(out, "\\");
            bg_text_append(out, text, length);
        }
        text += length;
        n -= length;
    }
}

void bg_put_csv(bg_text *out, const char *text)
{
    bool formula = *text && strchr("=+-@\t\r", *text);
    if (!formula && !text[strcspn(text, ",\"\r\n")]) {
        bg_text_puts(out, text);
        return;
    }
    bg_text_puts(out, "\"");
    if (formula) bg_text_puts(out, "'");
    for (; *text; text++) {
        if (*text == '"') bg_text_puts(out, "\"");
        bg_text_append(out, text, 1);
    }
    bg_text_puts(out, "\"");
}

/* What a code point looks like on a terminal: the bytes to write and the columns they take. */
static size_t terminal_glyph(const char **bytes, size_t *length, utf8proc_int32_t point)
{
    if (point == '\n' || point == '\r' || point == '\t') {
        *bytes = point == '\n' ? "↵" : " ";
        *length = strlen(*bytes);
        return 1;
    }
    if (is_control(point) || is_directional(point)) {
        *bytes = replacement;
        *length = 3;
        return 1;
    }
    int width = utf8proc_charwidth(point);
    return width > 0 ? (size_t)width : 0;
}

size_t bg_terminal_width(const char *text)
{
    size_t n = strlen(text), used = 0;
    while (n) {
        utf8proc_int32_t point;
        size_t length = next_point(text, n, &point), glyph_length = length;
        const char *glyph = text;
        used += terminal_glyph(&glyph, &glyph_length, point);
        text += length;
        n -= length;
    }
    return used;
}

size_t bg_put_terminal(bg_text *out, const char *text, size_t width)
{
    bool fits = bg_terminal_width(text) <= width;
    size_t n = strlen(text), used = 0, room = fits ? width : width ? width - 1 : 0;
    while (n) {
        utf8proc_int32_t point;
        size_t length = next_point(text, n, &point), glyph_length = length;
        const char *glyph = text;
        size_t columns = terminal_glyph(&glyph, &glyph_length, point);
        if (used + columns > room) break;
        bg_text_append(out, glyph, glyph_length);
        used += columns;
        text += length;
        n -= length;
    }
    if (!fits && width) {
        bg_text_puts(out, "…");
        used++;
    }
    return used;
}

/* Columns of the word at `text`, and its bytes in *bytes; a word longer than `most` columns ends
 * there. */
static size_t measure_word(const char *text, size_t most, size_t *bytes)
{
    size_t n = strlen(text), used = 0;
    *bytes = 0;
    while (*bytes < n && text[*bytes] != ' ' && text[*bytes] != '\n') {
        utf8proc_int32_t point;
        size_t length = next_point(text + *bytes, n - *bytes, &point), glyph_length = length;
        const char *glyph = text;
        size_t columns = terminal_glyph(&glyph, &glyph_length, point);
        if (used + columns > most && *bytes) break;
        used += columns;
        *bytes += length;
    }
    return used;
}

void bg_put_wrapped(bg_text *out, const char *text, size_t used, size_t indent, size_t width)
{
    if (width < indent + 8) width = indent + 8;
    while (*text) {
        size_t bytes;
        if (*text == ' ' || *text == '\n') {
            text++;
            continue;
        }
        size_t columns = measure_word(text, width - indent, &bytes);
        bool first = used <= indent;
        if (!first && used + 1 + columns > width) {
            bg_text_printf(out, "\n%*s", (int)indent, "");
            used = indent;
        } else if (!first) {
            bg_text_puts(out, " ");
            used++;
        }
        size_t n = bytes;
        while (n) {
            utf8proc_int32_t point;
            size_t length = next_point(text, n, &point), glyph_length = length;
            const char *glyph = text;
            used += terminal_glyph(&glyph, &glyph_length, point);
            bg_text_append(out, glyph, glyph_length);
            text += length;
            n -= length;
        }
    }
}
