/* A column's pages: headers, checksums, compression, and where the levels end and the values begin.
 */
#include "core/alloc.h"
#include "data/bits.h"
#include "data/parquet.h"
#include "data/thrift.h"

#include <zlib.h>

typedef struct {
    int64_t type, unpacked_size, size, crc;
    /* of whichever kind of page it is */
    int64_t n_values, encoding, definition_encoding, repetition_encoding;
    int64_t definition_size, repetition_size;
    bool is_compressed;
} page_header;

enum { DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 };
enum { PLAIN = 0, PLAIN_DICTIONARY = 2, RLE = 3 };

#define ABSENT INT64_MIN

static const bg_thrift_field data_fields[] = {
    {1, BG_THRIFT_INT, offsetof(page_header, n_values), NULL},
    {2, BG_THRIFT_INT, offsetof(page_header, encoding), NULL},
    {3, BG_THRIFT_INT, offsetof(page_header, definition_encoding), NULL},
    {4, BG_THRIFT_INT, offsetof(page_header, repetition_encoding), NULL},
    {0},
};

static const bg_thrift_field dictionary_fields[] = {
    {1, BG_THRIFT_INT, offsetof(page_header, n_values), NULL},
    {2, BG_THRIFT_INT, offsetof(page_header, encoding), NULL},
    {0},
};

static const bg_thrift_field data_v2_fields[] = {
    {1, BG_THRIFT_INT, offsetof(page_header, n_values), NULL},
    {4, BG_THRIFT_INT, offsetof(page_header, encoding), NULL},
    {5, BG_THRIFT_INT, offsetof(page_header, definition_size), NULL},
    {6, BG_THRIFT_INT, offsetof(page_header, repetition_size), NULL},
    {7, BG_THRIFT_BOOL, offsetof(page_header, is_compressed), NULL},
    {0},
};

static const bg_thrift_field page_fields[] = {
    {1, BG_THRIFT_INT, offsetof(page_header, type), NULL},
    {2, BG_THRIFT_INT, offsetof(page_header, unpacked_size), NULL},
    {3, BG_THRIFT_INT, offsetof(page_header, size), NULL},
    {4, BG_THRIFT_INT, offsetof(page_header, crc), NULL},
    {5, BG_THRIFT_STRUCT, 0, data_fields},
    {7, BG_THRIFT_STRUCT, 0, dictionary_fields},
    {8, BG_THRIFT_STRUCT, 0, data_v2_fields},
    {0},
};

/* Takes the header and the bytes of the next page off the chunk. */
static bg_status take_page(bg_parquet_pages *p, page_header *h, const uint8_t **data, bg_error *err)
{
    bg_thrift in = {p->at, p->end};
    *h = (page_header){.type = -1,
                       .crc = ABSENT,
                       .is_compressed = true,
                       .definition_encoding = RLE,
                       .repetition_encoding = RLE};
    if (!bg_thrift_read(&in, page_fields, h) || h->size < 0 || h->size > in.end - in.at ||
        h->unpacked_size < 0 || h->unpacked_size > INT32_MAX || h->n_values < 0)
        return bg_parquet_damaged(p->where, "the header of a page makes no sense", err);
    *data = in.at;
    p->at = in.at + h->size;
    /* Sizes of a page are at most INT32_MAX in a sound file; crc32_z takes any. */
    if (h->crc != ABSENT && (uint32_t)h->crc != crc32_z(0, *data, (size_t)h->size))
        return bg_parquet_damaged(p->where, "the checksum of a page is not that of its bytes", err);
    return BG_OK;
}

static bg_status read_dictionary(bg_parquet_pages *p, const page_header *h, const uint8_t *data,
                                 bg_error *err)
{
    bool in_place = bg_parquet_in_place(p->leaf, PLAIN);
    const uint8_t *values;
    if (p->n_dictionary || (h->encoding != PLAIN && h->encoding != PLAIN_DICTIONARY))
        return bg_parquet_damaged(p->where, "its dictionary makes no sense", err);
    BG_TRY(bg_unpack(in_place ? p->keep : p->scratch, p->codec, data, (size_t)h->size, p->where,
                     (size_t)h->unpacked_size, &values, err));
    size_t n = (size_t)h->n_values;
    /* A value of a dictionary is written out, in a bit at least. */
    if (n / 8 > (size_t)h->unpacked_size)
        return bg_parquet_damaged(p->where, "its dictionary makes no sense", err);
    if (n > p->dictionary_capacity) {
        bg_value *more = bg_realloc_array(p->dictionary, n, sizeof *more);
        if (!more) return bg_fail_memory(err, n * sizeof *more, p->where);
        p->dictionary = more;
        p->dictionary_capacity = n;
    }
    BG_TRY(bg_parquet_values(p, PLAIN, values, (size_t)h->unpacked_size, p->dictionary, n, err));
    p->n_dictionary = n;
    return BG_OK;
}

/* Levels in a page of version 1: their size in 4 bytes, then they. */
static bool take_levels(unsigned most, const uint8_t **at, const uint8_t *end,
                        const uint8_t **levels, size_t *size)
{
    if (most == 0) return true;
    if (end - *at < 4) return false;
    *size = bg_read_u32(*at);
    *levels = *at + 4;
    if (*size > (size_t)(end - *levels)) return false;
    *at = *levels + *size;
    return true;
}

static bg_status read_data(bg_parquet_pages *p, const page_header *h, const uint8_t *data,
                           bg_parquet_page *out, bg_error *err)
{
    bg_pool *pool = bg_parquet_in_place(p->leaf, h->encoding) ? p->keep : p->scratch;
    const uint8_t *at;
    /* Some writers call levels BIT_PACKED that are not there at all. */
    if ((p->leaf->max_definition && h->definition_encoding != RLE) ||
        (p->leaf->max_repetition && h->repetition_encoding != RLE))
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: levels in the deprecated encoding BIT_PACKED are not read; write the "
                       "file anew",
                       p->where);
    BG_TRY(bg_unpack(pool, p->codec, data, (size_t)h->size, p->where, (size_t)h->unpacked_size, &at,
                     err));
    const uint8_t *end = at + h->unpacked_size;
    if (!take_levels(p->leaf->max_repetition, &at, end, &out->repetition, &out->repetition_size) ||
        !take_levels(p->leaf->max_definition, &at, end, &out->definition, &out->definition_size))
        return bg_parquet_damaged(p->where, "a page is shorter than its levels", err);
    out->values = at;
    out->values_size = (size_t)(end - at);
    return BG_OK;
}

/* In version 2 the levels come first, are not compressed, and have their sizes in the header. */
static bg_status read_data_v2(bg_parquet_pages *p, const page_header *h, const uint8_t *data,
                              bg_parquet_page *out, bg_error *err)
{
    bg_pool *pool = bg_parquet_in_place(p->leaf, h->encoding) ? p->keep : p->scratch;
    int64_t r = h->repetition_size, d = h->definition_size;
    if (r < 0 || d < 0 || r > h->size || d > h->size - r || r + d > h->unpacked_size)
        return bg_parquet_damaged(p->where, "a page is shorter than its levels", err);
    out->repetition = data;
    out->repetition_size = (size_t)r;
    out->definition = data + r;
    out->definition_size = (size_t)d;
    out->values_size = (size_t)(h->unpacked_size - r - d);
    return bg_unpack(pool, h->is_compressed ? p->codec : BG_CODEC_NONE, data + r + d,
                     (size_t)(h->size - r - d), p->where, out->values_size, &out->values, err);
}

bg_status bg_parquet_next_page(bg_parquet_pages *p, bg_parquet_page *out, bg_error *err)
{
    page_header h;
    const uint8_t *data = NULL;
    for (;;) {
        if (p->at == p->end)
            return bg_parquet_damaged(p->where, "it has fewer pages than it should", err);
        bg_pool_free(p->scratch);
        BG_TRY(take_page(p, &h, &data, err));
        *out = (bg_parquet_page){.n_values = (size_t)h.n_values, .encoding = h.encoding};
        if (h.type == DATA_PAGE) return read_data(p, &h, data, out, err);
        if (h.type == DATA_PAGE_V2) return read_data_v2(p, &h, data, out, err);
        if (h.type == DICTIONARY_PAGE) BG_TRY(read_dictionary(p, &h, data, err));
        /* Pages of other types are for finding one's way, and may be skipped. */
    }
}
