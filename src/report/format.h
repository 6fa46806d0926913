/* Numbers as people read them, and strings made safe for each format. */
#ifndef BG_REPORT_FORMAT_H
#define BG_REPORT_FORMAT_H

#include "core/text.h"

#include <stdbool.h>
#include <stddef.h>

/* How a number is stored in the document and shown. */
typedef enum {
    BG_UNIT_COUNT,        /* 1,234 */
    BG_UNIT_NUMBER,       /* 12.34: perplexity */
    BG_UNIT_BYTES,        /* stored in bytes, shown in KiB, MiB or GiB */
    BG_UNIT_SECONDS,      /* stored in s, shown in s */
    BG_UNIT_MILLISECONDS, /* stored in ms, shown in ms */
    BG_UNIT_S_AS_MS,      /* stored in s, shown in ms */
    BG_UNIT_JOULES,       /* stored in J, shown in J or mJ */
    BG_UNIT_RATE,         /* per second */
    BG_UNIT_BYTE_RATE,    /* stored in bytes per second, shown in MB/s or GB/s */
    BG_UNIT_RATIO,        /* 1.84× */
    BG_UNIT_PERCENT,      /* stored as a fraction, shown as 81.9 % */
    BG_UNIT_CHANGE,       /* stored in per cent, shown with its sign: +1.3 % */
    BG_UNIT_POINTS,       /* stored as a fraction, shown in percentage points: −0.4 */
} bg_unit;

/* How the numbers of one column are shown, so that they line up: all in one unit, with as many
 * decimals. */
typedef struct {
    const char *name; /* "MiB"; "" where the number needs none or carries it */
    double divisor;   /* shown = stored / divisor */
    int decimals;
    bool sign; /* a + before what is above zero */
} bg_scale;

/* The scale for numbers whose finite absolute values lie in [least, most], the zeros left out. */
bg_scale bg_scale_for(bg_unit unit, double least, double most);

enum { BG_CELL = 48 };
/* Writes a number in its scale, with thousands separators and a true minus sign; "–" for NaN.
 * Returns out. */
const char *bg_show(char out[BG_CELL], double value, const bg_scale *scale);
/* Writes a number that stands alone, with its unit: "1.23 GiB", "1.84×", "81.9 %". */
const char *bg_show_alone(char out[BG_CELL], double value, bg_unit unit);

/* ---- escaping: each appends `text` (n bytes, or all of a NUL-terminated one) ----------------- */

/* For an HTML text or a quoted attribute. Control characters and invalid UTF-8 become U+FFFD. */
void bg_put_html(bg_text *out, const char *text);
void bg_put_html_n(bg_text *out, const char *text, size_t n);

/* For a line of Markdown, table cells included: what would be markup is escaped, line ends are
 * shown as ↵. */
void bg_put_markdown(bg_text *out, const char *text);

/* A CSV field (RFC 4180), quoted where it must be. A string that a spreadsheet would take for a
 * formula (leading = + - @, tab, carriage return) gets an apostrophe before it. */
void bg_put_csv(bg_text *out, const char *text);

/* For a terminal: control characters, among them the escape character, and those that change the
 * writing direction are replaced, so that text from a file cannot command the terminal. Appends at
 * most `width` columns, the last of them an ellipsis where the text is longer. Returns the columns
 * taken. */
size_t bg_put_terminal(bg_text *out, const char *text, size_t width);
/* Columns that bg_put_terminal would take with no limit. */
size_t bg_terminal_width(const char *text);
/* Appends the text in lines of at most `width` columns, each after the first preceded by a newline
 * and `indent` spaces; the first starts at column `used`. */
void bg_put_wrapped(bg_text *out, const char *text, size_t used, size_t indent, size_t width);

#endif
