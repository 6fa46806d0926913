#include "data/unpack.h"

#include "core/alloc.h"

#include <limits.h>
#include <snappy-c.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/* ---- gzip ------------------------------------------------------------------------------------ */

/* zlib allocates through core/alloc, so that tests make it fail. */
static voidpf zlib_alloc(voidpf context, uInt count, uInt size)
{
    (void)context;
    return bg_calloc(count, size);
}

static void zlib_free(voidpf context, voidpf p)
{
    (void)context;
    bg_free(p);
}

static uInt at_most_int(size_t n)
{
    return n < INT_MAX ? (uInt)n : INT_MAX;
}

/* Unpacks all members into out (*out_size bytes, all of which must be made), or, if out is NULL,
 * only counts what they come to. A zlib return code; Z_DATA_ERROR for all that is wrong with the
 * data. */
static int inflate_members(z_stream *z, const uint8_t *data, size_t size, uint8_t *out,
                           size_t *out_size)
{
    uint8_t scratch[16384];
    size_t made = 0;
    int result;
    do {
        uInt in = at_most_int(size), room = out ? at_most_int(*out_size - made) : sizeof scratch;
        z->next_in = (uint8_t *)data;
        z->avail_in = in;
        z->next_out = out ? out + made : scratch;
        z->avail_out = room;
        result = inflate(z, Z_NO_FLUSH);
        size_t used = in - z->avail_in;
        made += room - z->avail_out;
        data += used;
        size -= used;
        if (result == Z_STREAM_END) {
            if (inflateReset(z) != Z_OK) return Z_DATA_ERROR;
        } else if (result == Z_MEM_ERROR) {
            return result;
        } else if (result != Z_OK) {
            return Z_DATA_ERROR;
        }
    } while (size > 0 || result != Z_STREAM_END);
    if (out && made != *out_size) return Z_DATA_ERROR;
    *out_size = made;
    return Z_OK;
}

static int inflate_all(const uint8_t *data, size_t size, uint8_t *out, size_t *out_size)
{
    enum { ZLIB_OR_GZIP = 15 + 32 };
    z_stream z = {.zalloc = zlib_alloc, .zfree = zlib_free};
    int result = inflateInit2(&z, ZLIB_OR_GZIP);
    if (result != Z_OK) return result;
    result = inflate_members(&z, data, size, out, out_size);
    inflateEnd(&z);
    return result;
}

bg_status bg_gunzip(bg_pool *pool, const char *data, size_t size, const char *where,
                    const char **out, size_t *out_size, bg_error *err)
{
    const uint8_t *bytes = (const uint8_t *)data;
    void *memory = NULL;
    int result = inflate_all(bytes, size, NULL, out_size);
    if (result == Z_OK) {
        BG_TRY(bg_pool_alloc(pool, *out_size, 1, where, &memory, err));
        result = inflate_all(bytes, size, memory, out_size);
    }
    *out = memory;
    if (result == Z_OK) return BG_OK;
    if (result == Z_MEM_ERROR) return bg_fail_memory(err, 1 << 15, where);
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: the gzip data is damaged or cut short; download the file again", where);
}

/* ---- the codecs of Parquet ------------------------------------------------------------------- */

typedef enum { UNPACKED, DAMAGED, NO_MEMORY } outcome;

static outcome unpack_snappy(const uint8_t *data, size_t size, uint8_t *out, size_t out_size)
{
    size_t length;
    if (snappy_uncompressed_length((const char *)data, size, &length) != SNAPPY_OK ||
        length != out_size)
        return DAMAGED;
    snappy_status status = snappy_uncompress((const char *)data, size, (char *)out, &length);
    return status == SNAPPY_OK && length == out_size ? UNPACKED : DAMAGED;
}

static outcome unpack_gzip(const uint8_t *data, size_t size, uint8_t *out, size_t out_size)
{
    int result = inflate_all(data, size, out, &out_size);
    return result == Z_OK ? UNPACKED : result == Z_MEM_ERROR ? NO_MEMORY : DAMAGED;
}

static outcome unpack_zstd(const uint8_t *data, size_t size, uint8_t *out, size_t out_size)
{
    size_t made = ZSTD_decompress(out, out_size, data, size);
    if (ZSTD_isError(made))
        return ZSTD_getErrorCode(made) == ZSTD_error_memory_allocation ? NO_MEMORY : DAMAGED;
    return made == out_size ? UNPACKED : DAMAGED;
}

/* `ratio` is the most bytes that the format can make of one, rounded up: a copy of 64 bytes takes 2
 * in snappy, a copy of 258 takes 2 bits in deflate, a block of 128 KiB takes 4 bytes in zstd. */
static const struct {
    const char *name;
    outcome (*unpack)(const uint8_t *data, size_t size, uint8_t *out, size_t out_size);
    size_t ratio;
} codecs[BG_CODEC_COUNT] = {
    [BG_CODEC_NONE] = {"none", NULL, 1},
    [BG_CODEC_SNAPPY] = {"snappy", unpack_snappy, 64},
    [BG_CODEC_GZIP] = {"gzip", unpack_gzip, 1040},
    [BG_CODEC_LZO] = {"LZO", NULL, 0},
    [BG_CODEC_BROTLI] = {"Brotli", NULL, 0},
    [BG_CODEC_LZ4] = {"LZ4", NULL, 0},
    [BG_CODEC_ZSTD] = {"zstd", unpack_zstd, 1 << 16},
    [BG_CODEC_LZ4_RAW] = {"LZ4_RAW", NULL, 0},
};

const char *bg_codec_name(bg_codec codec)
{
    return codecs[codec].name;
}

bool bg_codec_is_known(bg_codec codec)
{
    return codecs[codec].ratio > 0;
}

bg_status bg_unpack(bg_pool *pool, bg_codec codec, const uint8_t *data, size_t size,
                    const char *where, size_t out_size, const uint8_t **out, bg_error *err)
{
    bool possible = out_size / codecs[codec].ratio <= size;
    *out = data;
    if (codec == BG_CODEC_NONE && size == out_size) return BG_OK;
    /* An empty page may come without a single compressed byte. */
    if (size == 0 && out_size == 0) return BG_OK;
    outcome result = DAMAGED;
    if (possible && codecs[codec].unpack) {
        void *memory;
        BG_TRY(bg_pool_alloc(pool, out_size, 1, where, &memory, err));
        *out = memory;
        result = codecs[codec].unpack(data, size, memory, out_size);
    }
    if (result == UNPACKED) return BG_OK;
    if (result == NO_MEMORY) return bg_fail_memory(err, out_size, where);
    return bg_fail(
        err, BG_ERR_FORMAT,
        "%s: a page of %zu bytes does not unpack (%s) to the %zu bytes it should be; the "
        "file is damaged, download it again",
        where, size, codecs[codec].name, out_size);
}
