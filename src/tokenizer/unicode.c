#include "tokenizer/unicode.h"

#include "core/alloc.h"
#include "tokenizer/script_table.h"
#include "tokenizer/unicode_tables.h"

#include <string.h>
#include <utf8proc.h>

/* ---- UTF-8 ----------------------------------------------------------------------------------- */

/* Length of the well-formed character at `s` (n > 0 bytes); where there is none, 0, and *bad is
 * the length of the maximal ill-formed part (table 3-7 of the Unicode standard). */
static size_t scan(const uint8_t *s, size_t n, size_t *bad)
{
    uint8_t b = s[0];
    *bad = 1;
    if (b < 0x80) return 1;
    size_t length = b >= 0xC2 && b <= 0xDF   ? 2
                    : (b & 0xF0) == 0xE0     ? 3
                    : b >= 0xF0 && b <= 0xF4 ? 4
                                             : 0;
    if (!length) return 0;
    uint8_t low = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;
    uint8_t high = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < length; i++) {
        if (i >= n || s[i] < low || s[i] > high) return 0;
        *bad = i + 1;
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

size_t bg_utf8_valid(const char *text, size_t size)
{
    size_t i = 0, bad;
    while (i < size) {
        size_t n = scan((const uint8_t *)text + i, size - i, &bad);
        if (!n) break;
        i += n;
    }
    return i;
}

uint32_t bg_utf8_next(const char *text, size_t *length)
{
    const uint8_t *s = (const uint8_t *)text;
    if (s[0] < 0x80) {
        *length = 1;
        return s[0];
    }
    *length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    uint32_t c = s[0] & (0x7Fu >> *length);
    for (size_t i = 1; i < *length; i++) c = c << 6 | (s[i] & 0x3Fu);
    return c;
}

uint32_t bg_utf8_last(const char *text, size_t size, size_t *length)
{
    size_t i = size - 1;
    while (i > 0 && ((uint8_t)text[i] & 0xC0) == 0x80) i--;
    return bg_utf8_next(text + i, length);
}

size_t bg_utf8_count(const char *text, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += ((uint8_t)text[i] & 0xC0) != 0x80;
    return count;
}

void bg_utf8_append(bg_text *text, uint32_t c)
{
    utf8proc_uint8_t bytes[4];
    utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)c, bytes);
    bg_text_append(text, (const char *)bytes, (size_t)n);
}

void bg_utf8_append_lossy(bg_text *text, const char *bytes, size_t n)
{
    size_t done = 0, bad = 0;
    while (done < n) {
        size_t valid = bg_utf8_valid(bytes + done, n - done);
        bg_text_append(text, bytes + done, valid);
        done += valid;
        if (done == n) break;
        scan((const uint8_t *)bytes + done, n - done, &bad);
        bg_utf8_append(text, 0xFFFD);
        done += bad;
    }
}

/* ---- character classes ----------------------------------------------------------------------- */

static bool in_ranges(const bg_unicode_range *ranges, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && c >= ranges[low].first;
}

#define IN(table, c) in_ranges(table, sizeof(table) / sizeof *(table), c)

static bool is_control(uint32_t c)
{
    int class = utf8proc_get_property((utf8proc_int32_t)c)->boundclass;
    return class == UTF8PROC_BOUNDCLASS_CONTROL || class == UTF8PROC_BOUNDCLASS_CR ||
           class == UTF8PROC_BOUNDCLASS_LF;
}

size_t bg_grapheme(const char *text, size_t size)
{
    size_t length, n;
    utf8proc_int32_t state = 0;
    if ((uint8_t)text[0] < 0x80 && (size == 1 || (uint8_t)text[1] < 0x80))
        return size > 1 && text[0] == '\r' && text[1] == '\n' ? 2 : 1;
    uint32_t last = bg_utf8_next(text, &length);
    while (length < size) {
        uint32_t c = bg_utf8_next(text + length, &n);
        bool parts =
            utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)c, &state);
        /* utf8proc does not know the marks of later versions of Unicode. */
        bool new_mark = parts && !is_control(last) && !is_control(c) &&
                        (IN(bg_unicode_extends, c) || IN(bg_unicode_prepends, last));
        /* Which had this one join what follows it. */
        bool old_mark = last == 0x11A3A && !IN(bg_unicode_extends, c);
        if ((parts && !new_mark) || old_mark) break;
        last = c;
        length += n;
    }
    return length;
}

bool bg_is_whitespace(uint32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool bg_is_word(uint32_t c)
{
    if (c < 0x80)
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_';
    return IN(bg_unicode_word, c);
}

bool bg_is_numeric(uint32_t c)
{
    return c < 0x80 ? c >= '0' && c <= '9' : IN(bg_unicode_numeric, c);
}

bool bg_is_punctuation(uint32_t c)
{
    return IN(bg_unicode_punctuation, c);
}

bool bg_is_removed(uint32_t c)
{
    return IN(bg_unicode_removed, c);
}

bool bg_is_nonspacing(uint32_t c)
{
    return c >= 0x300 && IN(bg_unicode_nonspacing, c);
}

bool bg_is_mark(uint32_t c)
{
    return c >= 0x300 && IN(bg_unicode_mark, c);
}

unsigned bg_script(uint32_t c)
{
    size_t low = 0, high = sizeof bg_unicode_scripts / sizeof *bg_unicode_scripts;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (c >= bg_unicode_scripts[middle].first)
            low = middle;
        else
            high = middle;
    }
    return bg_unicode_scripts[low].script;
}

bool bg_is_chinese(uint32_t c)
{
    static const bg_unicode_range blocks[] = {
        {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
        {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F},
    };
    return c >= 0x3400 && IN(blocks, c);
}

void bg_append_lower(bg_text *text, uint32_t c)
{
    if (c == 0x130) { /* the one letter whose lower case is two characters, i and a dot above */
        bg_text_append(text, "i\xCC\x87", 3);
        return;
    }
    size_t low = 0, high = sizeof bg_unicode_lower / sizeof *bg_unicode_lower;
    while (low < high && c >= bg_unicode_lower[0][0]) {
        size_t middle = (low + high) / 2;
        if (bg_unicode_lower[middle][0] == c) {
            bg_utf8_append(text, bg_unicode_lower[middle][1]);
            return;
        }
        if (bg_unicode_lower[middle][0] < c)
            low = middle + 1;
        else
            high = middle;
    }
    bg_utf8_append(text, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
}

/* ---- normalization forms --------------------------------------------------------------------- */

static int combining_class(utf8proc_int32_t c)
{
    int class = utf8proc_get_property(c)->combining_class;
    return class && IN(bg_unicode_unclassed, (uint32_t)c) ? 0 : class;
}

/* Sorts each run of combining characters by class, keeping the order within a class. Insertion
 * sort, which is quick on the runs of real text; a long hostile run is merged instead. */
static void reorder_run(utf8proc_int32_t *run, size_t n, utf8proc_int32_t *spare)
{
    if (n <= 32) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t c = run[i];
            int class = combining_class(c);
            size_t j = i;
            for (; j > 0 && combining_class(run[j - 1]) > class; j--) run[j] = run[j - 1];
            run[j] = c;
        }
        return;
    }
    size_t half = n / 2;
    reorder_run(run, half, spare);
    reorder_run(run + half, n - half, spare);
    memcpy(spare, run, half * sizeof *run);
    size_t a = 0, b = half, out = 0;
    while (a < half && b < n) {
        bool right = combining_class(run[b]) < combining_class(spare[a]);
        run[out++] = right ? run[b++] : spare[a++];
    }
    while (a < half) run[out++] = spare[a++];
}

static void reorder(utf8proc_int32_t *points, size_t n, utf8proc_int32_t *spare)
{
    for (size_t i = 0; i < n; i++) {
        if (!combining_class(points[i])) continue;
        size_t end = i + 1;
        while (end < n && combining_class(points[end])) end++;
        reorder_run(points + i, end - i, spare);
        i = end;
    }
}

bg_status bg_append_normalized(bg_text *out, const char *text, size_t size, bg_normal_form form,
                               bg_error *err)
{
    bool ascii = true;
    for (size_t i = 0; i < size && ascii; i++) ascii = (uint8_t)text[i] < 0x80;
    if (ascii) { /* is its own normal form in all four */
        bg_text_append(out, text, size);
        return BG_OK;
    }
    enum { LONGEST = 18 }; /* code points that one decomposes into, at most */
    int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (form & BG_NFKD ? UTF8PROC_COMPAT : 0);
    size_t capacity = size + LONGEST, n = 0;
    utf8proc_int32_t *points = bg_alloc_array(capacity, sizeof *points);
    bg_status status = BG_OK;
    for (size_t i = 0, length; points && i < size; i += length) {
        uint32_t c = bg_utf8_next(text + i, &length);
        if (capacity - n < LONGEST) {
            utf8proc_int32_t *grown = bg_realloc_array(points, capacity * 2, sizeof *points);
            if (!grown) {
                bg_free(points);
                return bg_fail_memory(err, capacity * 2 * sizeof *points, "a normalized text");
            }
            points = grown;
            capacity *= 2;
        }
        int boundary = 0;
        /* U+11938 came with Unicode 13. */
        if (c == 0x11938 || (form & BG_NFKD && IN(bg_unicode_whole, c))) {
            points[n++] = (utf8proc_int32_t)c;
            continue;
        }
        n += (size_t)utf8proc_decompose_char((utf8proc_int32_t)c, points + n, LONGEST, options,
                                             &boundary);
    }
    utf8proc_int32_t *spare = points ? bg_alloc_array(n, sizeof *spare) : NULL;
    if (!spare) {
        status = bg_fail_memory(err, capacity * sizeof *points, "a normalized text");
    } else {
        reorder(points, n, spare);
        if (form & BG_NFC)
            n = (size_t)utf8proc_normalize_utf32(points, (utf8proc_ssize_t)n,
                                                 UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        for (size_t i = 0; i < n; i++) bg_utf8_append(out, (uint32_t)points[i]);
    }
    bg_free(spare);
    bg_free(points);
    return status;
}

/* ---- bytes as characters --------------------------------------------------------------------- */

/* GPT-2's encoder: a byte that is a visible Latin-1 character is written as itself, the 68 others
 * as U+0100, U+0101, ... in order: 0-0x20, 0x7F-0xA0, 0xAD. */
uint32_t bg_byte_to_char(uint8_t byte)
{
    if (byte <= 0x20) return 0x100u + byte;
    if (byte >= 0x7F && byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
    return byte == 0xAD ? 0x143 : byte;
}

int bg_char_to_byte(uint32_t c)
{
    if (c >= 0x100 && c <= 0x120) return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142) return (int)(c - 0x121 + 0x7F);
    if (c == 0x143) return 0xAD;
    return c < 0x100 && bg_byte_to_char((uint8_t)c) == c ? (int)c : -1;
}
