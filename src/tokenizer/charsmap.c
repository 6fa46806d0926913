#include "tokenizer/charsmap.h"

#include "core/alloc.h"
#include "tokenizer/unicode.h"

#include <string.h>

static bg_status damaged(const char *where, const char *why, bg_error *err)
{
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: the precompiled character map %s; the file is damaged, download it again",
                   where, why);
}

static uint32_t little_endian(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

bg_status bg_charsmap_parse(const uint8_t *data, size_t size, const char *where, bg_charsmap *out,
                            bg_error *err)
{
    *out = (bg_charsmap){0};
    if (size < 4) return damaged(where, "is cut short", err);
    size_t n = little_endian(data) / 4;
    if (n == 0 || n > (size - 4) / 4) return damaged(where, "is cut short", err);
    const char *text = (const char *)data + 4 + 4 * n;
    size_t text_size = size - 4 - 4 * n;
    if (bg_utf8_valid(text, text_size) != text_size)
        return damaged(where, "holds text that is not UTF-8", err);
    out->units = bg_alloc_array(n, sizeof *out->units);
    out->text = bg_alloc(text_size + 1);
    if (!out->units || !out->text) {
        bg_charsmap_free(out);
        return bg_fail_memory(err, size, "a character map");
    }
    for (size_t i = 0; i < n; i++) out->units[i] = little_endian(data + 4 + 4 * i);
    memcpy(out->text, text, text_size);
    out->text[text_size] = '\0';
    out->n_units = n;
    out->size = text_size;
    return BG_OK;
}

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bg_status bg_charsmap_base64(const char *encoded, const char *where, bg_charsmap *out,
                             bg_error *err)
{
    size_t length = strlen(encoded), n = 0;
    while (length > 0 && encoded[length - 1] == '=') length--;
    uint8_t *bytes = bg_alloc(length / 4 * 3 + 3);
    if (!bytes) return bg_fail_memory(err, length, "a character map");
    uint32_t bits = 0;
    bg_status status = BG_OK;
    for (size_t i = 0; status == BG_OK && i < length; i++) {
        int value = digit(encoded[i]);
        if (value < 0) status = damaged(where, "is not base64", err);
        bits = bits << 6 | (uint32_t)(value & 63);
        /* Six bits at a time: the second, third and fourth character each complete a byte. */
        if (i % 4) bytes[n++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    if (status == BG_OK) status = bg_charsmap_parse(bytes, n, where, out, err);
    bg_free(bytes);
    return status;
}

void bg_charsmap_free(bg_charsmap *map)
{
    bg_free(map->units);
    bg_free(map->text);
    *map = (bg_charsmap){0};
}

/* The replacement of the shortest (or the longest) key that `text` begins with, and in *length the
 * bytes of that key; NULL where there is none. */
static const char *find(const bg_charsmap *map, const char *text, size_t size, bool longest,
                        size_t *length)
{
    /* A unit: bits 0-7 and 31 the label that leads here (31: a leaf, its value the rest), bit 8
     * whether a leaf hangs below, bits 10-30 the offset to the children, by 256 if bit 9 is set. */
    const char *found = NULL;
    size_t node = 0;
    uint32_t unit = map->units[0];
    for (size_t i = 0; i <= size; i++) {
        node ^= (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
        if (i > 0 && unit >> 8 & 1) {
            if (node >= map->n_units) return found;
            size_t at = map->units[node] & 0x7FFFFFFF;
            if (at > map->size || (at < map->size && ((uint8_t)map->text[at] & 0xC0) == 0x80))
                return found;
            found = map->text + at;
            *length = i;
            if (!longest) return found;
        }
        uint8_t byte = i < size ? (uint8_t)text[i] : 0;
        if (!byte) return found;
        node ^= byte;
        if (node >= map->n_units) return found;
        unit = map->units[node];
        if ((unit & (1u << 31 | 0xFF)) != byte) return found;
    }
    return found;
}

static bg_status append(bg_text *out, const char *text, size_t size, size_t limit, bg_error *err)
{
    if (out->size + size > limit)
        return bg_fail(err, BG_ERR_FORMAT,
                       "the tokenizer's character map makes more than %zu bytes of text; its file "
                       "is damaged, download it again",
                       limit);
    bg_text_append(out, text, size);
    return BG_OK;
}

/* From the left, the longest rule; the text between rules as it is. */
static bg_status apply_longest(const bg_charsmap *map, const char *text, size_t size, size_t limit,
                               bg_text *out, bg_error *err)
{
    for (size_t i = 0, n; i < size; i += n) {
        const char *found = find(map, text + i, size - i, true, &n);
        if (!found) bg_utf8_next(text + i, &n);
        BG_TRY(append(out, found ? found : text + i, found ? strlen(found) : n, limit, err));
    }
    return BG_OK;
}

bg_status bg_charsmap_apply(const bg_charsmap *map, const char *text, size_t size, size_t limit,
                            bg_text *out, bg_error *err)
{
    enum { LONGEST_GRAPHEME = 5 };
    if (map->longest) return apply_longest(map, text, size, limit, out, err);
    for (size_t i = 0, length, n, key; i < size; i += length) {
        length = bg_grapheme(text + i, size - i);
        const char *found =
            length <= LONGEST_GRAPHEME ? find(map, text + i, length, false, &key) : NULL;
        if (found) {
            BG_TRY(append(out, found, strlen(found), limit, err));
            continue;
        }
        for (size_t done = 0; done < length; done += n) {
            const char *part = text + i + done;
            bg_utf8_next(part, &n);
            found = find(map, part, n, false, &key);
            BG_TRY(append(out, found ? found : part, found ? strlen(found) : n, limit, err));
        }
    }
    return BG_OK;
}
