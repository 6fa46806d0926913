/* The values of a Parquet page, encoding by encoding. */
#include "core/alloc.h"
#include "core/checked.h"
#include "data/bits.h"
#include "data/parquet.h"

#include <string.h>

typedef struct {
    const bg_parquet_pages *pages;
    const uint8_t *at, *end;
    bg_error *err;
} source;

static bg_status ends_early(const source *s)
{
    return bg_parquet_damaged(s->pages->where, "a page ends before its last value", s->err);
}

static bg_status too_large(const source *s)
{
    return bg_fail(s->err, BG_ERR_UNSUPPORTED, "%s: a number is too large for 64 bits with sign",
                   s->pages->where);
}

/* ---- PLAIN ----------------------------------------------------------------------------------- */

static bool set_int(const source *s, uint64_t bits, bg_value *out)
{
    const bg_parquet_leaf *leaf = s->pages->leaf;
    int64_t value = (int64_t)bits;
    if (leaf->type == BG_PARQUET_INT32)
        value = leaf->is_unsigned ? (int64_t)(uint32_t)bits : (int32_t)(uint32_t)bits;
    *out = (bg_value){.kind = BG_VALUE_INT, .integer = value};
    return value >= 0 || !leaf->is_unsigned;
}

static bool read_int32(const source *s, const uint8_t *at, bg_value *out)
{
    return set_int(s, bg_read_u32(at), out);
}

static bool read_int64(const source *s, const uint8_t *at, bg_value *out)
{
    return set_int(s, bg_read_u64(at), out);
}

static bool read_float(const source *s, const uint8_t *at, bg_value *out)
{
    (void)s;
    uint32_t bits = bg_read_u32(at);
    float value;
    memcpy(&value, &bits, sizeof value);
    *out = (bg_value){.kind = BG_VALUE_REAL, .real = (double)value};
    return true;
}

static bool read_double(const source *s, const uint8_t *at, bg_value *out)
{
    (void)s;
    uint64_t bits = bg_read_u64(at);
    *out = (bg_value){.kind = BG_VALUE_REAL};
    memcpy(&out->real, &bits, sizeof out->real);
    return true;
}

static bg_status plain_booleans(source *s, bg_value *out, size_t n)
{
    if (n / 8 + (n % 8 > 0) > (size_t)(s->end - s->at)) return ends_early(s);
    for (size_t i = 0; i < n; i++)
        out[i] = (bg_value){.kind = BG_VALUE_BOOL, .boolean = s->at[i / 8] >> i % 8 & 1};
    return BG_OK;
}

static bg_status plain_strings(source *s, bg_value *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s->end - s->at < 4) return ends_early(s);
        size_t size = bg_read_u32(s->at);
        s->at += 4;
        if (size > (size_t)(s->end - s->at)) return ends_early(s);
        out[i] = (bg_value){.kind = BG_VALUE_STRING, .size = size, .string = (const char *)s->at};
        s->at += size;
    }
    return BG_OK;
}

static const struct {
    size_t size;
    bool (*read)(const source *s, const uint8_t *at, bg_value *out);
} number_types[BG_PARQUET_TYPES] = {
    [BG_PARQUET_INT32] = {4, read_int32},
    [BG_PARQUET_INT64] = {8, read_int64},
    [BG_PARQUET_FLOAT] = {4, read_float},
    [BG_PARQUET_DOUBLE] = {8, read_double},
};

static bg_status plain(source *s, bg_value *out, size_t n)
{
    bg_parquet_type type = s->pages->leaf->type;
    size_t size = number_types[type].size;
    if (type == BG_PARQUET_BOOLEAN) return plain_booleans(s, out, n);
    if (type == BG_PARQUET_BYTE_ARRAY) return plain_strings(s, out, n);
    if (n > (size_t)(s->end - s->at) / size) return ends_early(s);
    for (size_t i = 0; i < n; i++, s->at += size)
        if (!number_types[type].read(s, s->at, &out[i])) return too_large(s);
    return BG_OK;
}

/* The first bytes of all numbers, then the second ones ... */
static bg_status byte_stream_split(source *s, bg_value *out, size_t n)
{
    bg_parquet_type type = s->pages->leaf->type;
    size_t size = number_types[type].size;
    uint8_t bytes[8];
    if (size == 0 || n > (size_t)(s->end - s->at) / size) return ends_early(s);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < size; k++) bytes[k] = s->at[k * n + i];
        if (!number_types[type].read(s, bytes, &out[i])) return too_large(s);
    }
    return BG_OK;
}

/* ---- run lengths and dictionaries ------------------------------------------------------------ */

enum { BATCH = 1024 };

static bg_status run_lengths(source *s, bg_value *out, size_t n)
{
    uint32_t bits[BATCH];
    if (s->pages->leaf->type != BG_PARQUET_BOOLEAN || s->end - s->at < 4) return ends_early(s);
    size_t size = bg_read_u32(s->at);
    s->at += 4;
    if (size > (size_t)(s->end - s->at)) return ends_early(s);
    bg_rle rle = {.at = s->at, .end = s->at + size, .width = 1};
    for (size_t i = 0; i < n;) {
        size_t count = bg_min_size(n - i, BATCH);
        if (!bg_rle_read(&rle, bits, count)) return ends_early(s);
        for (size_t k = 0; k < count; k++)
            out[i++] = (bg_value){.kind = BG_VALUE_BOOL, .boolean = bits[k] & 1};
    }
    return BG_OK;
}

static bg_status dictionary(source *s, bg_value *out, size_t n)
{
    const bg_parquet_pages *p = s->pages;
    uint32_t indexes[BATCH];
    if (n == 0) return BG_OK;
    if (s->at == s->end || *s->at > 32) return ends_early(s);
    bg_rle rle = {.at = s->at + 1, .end = s->end, .width = *s->at};
    for (size_t i = 0; i < n;) {
        size_t count = bg_min_size(n - i, BATCH);
        if (!bg_rle_read(&rle, indexes, count)) return ends_early(s);
        for (size_t k = 0; k < count; k++) {
            if (indexes[k] >= p->n_dictionary)
                return bg_parquet_damaged(p->where, "a value is not in its dictionary", s->err);
            out[i++] = p->dictionary[indexes[k]];
        }
    }
    return BG_OK;
}

/* ---- differences ----------------------------------------------------------------------------- */

/* n numbers, in scratch memory. */
static bg_status differences(source *s, int64_t **out, size_t n)
{
    void *numbers;
    BG_TRY(bg_pool_alloc(s->pages->scratch, n, sizeof(int64_t), s->pages->where, &numbers, s->err));
    *out = numbers;
    return bg_delta_read(&s->at, s->end, *out, n) ? BG_OK : ends_early(s);
}

static bg_status delta_binary_packed(source *s, bg_value *out, size_t n)
{
    bg_parquet_type type = s->pages->leaf->type;
    int64_t *numbers;
    if (type != BG_PARQUET_INT32 && type != BG_PARQUET_INT64) return ends_early(s);
    BG_TRY(differences(s, &numbers, n));
    for (size_t i = 0; i < n; i++)
        if (!set_int(s, (uint64_t)numbers[i], &out[i])) return too_large(s);
    return BG_OK;
}

static bg_status delta_length_byte_array(source *s, bg_value *out, size_t n)
{
    int64_t *sizes;
    if (s->pages->leaf->type != BG_PARQUET_BYTE_ARRAY) return ends_early(s);
    BG_TRY(differences(s, &sizes, n));
    for (size_t i = 0; i < n; i++) {
        if (sizes[i] < 0 || sizes[i] > s->end - s->at) return ends_early(s);
        out[i] = (bg_value){
            .kind = BG_VALUE_STRING, .size = (size_t)sizes[i], .string = (const char *)s->at};
        s->at += sizes[i];
    }
    return BG_OK;
}

/* Each string is the first bytes of the one before it, and what follows them. */
static bg_status delta_byte_array(source *s, bg_value *out, size_t n)
{
    const bg_parquet_pages *p = s->pages;
    int64_t *prefixes;
    bg_value last = {.kind = BG_VALUE_STRING, .string = ""};
    if (p->leaf->type != BG_PARQUET_BYTE_ARRAY) return ends_early(s);
    BG_TRY(differences(s, &prefixes, n));
    BG_TRY(delta_length_byte_array(s, out, n));
    for (size_t i = 0; i < n; i++) {
        void *memory;
        if (prefixes[i] < 0 || (uint64_t)prefixes[i] > last.size) return ends_early(s);
        size_t prefix = (size_t)prefixes[i], size = prefix + out[i].size;
        BG_TRY(bg_pool_alloc(p->keep, size, 1, p->where, &memory, s->err));
        char *string = memory;
        memcpy(string, last.string, prefix);
        memcpy(string + prefix, out[i].string, out[i].size);
        out[i].string = string;
        out[i].size = size;
        last = out[i];
    }
    return BG_OK;
}

/* ---- which ----------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    bg_status (*read)(source *s, bg_value *out, size_t n); /* NULL: refused */
    bool in_place;
} encodings[] = {
    {"PLAIN", plain, true},
    {"1", NULL, false},
    {"PLAIN_DICTIONARY", dictionary, false},
    {"RLE", run_lengths, false},
    {"BIT_PACKED", NULL, false},
    {"DELTA_BINARY_PACKED", delta_binary_packed, false},
    {"DELTA_LENGTH_BYTE_ARRAY", delta_length_byte_array, true},
    {"DELTA_BYTE_ARRAY", delta_byte_array, false},
    {"RLE_DICTIONARY", dictionary, false},
    {"BYTE_STREAM_SPLIT", byte_stream_split, false},
};

enum { ENCODINGS = sizeof encodings / sizeof *encodings };

bool bg_parquet_in_place(const bg_parquet_leaf *leaf, int64_t encoding)
{
    return leaf->type == BG_PARQUET_BYTE_ARRAY && encoding >= 0 && encoding < ENCODINGS &&
           encodings[encoding].in_place;
}

bg_status bg_parquet_values(const bg_parquet_pages *pages, int64_t encoding, const uint8_t *data,
                            size_t size, bg_value *out, size_t n, bg_error *err)
{
    source s = {pages, data, data + size, err};
    if (encoding < 0 || encoding >= ENCODINGS)
        return bg_parquet_damaged(pages->where, "a page's encoding is none of Parquet's", err);
    if (!encodings[encoding].read)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: values in the encoding %s are not read; write the file anew with "
                       "another",
                       pages->where, encodings[encoding].name);
    return encodings[encoding].read(&s, out, n);
}
