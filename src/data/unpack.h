/* Compressed bytes, unpacked whole. None of the sizes involved are trusted. */
#ifndef BG_DATA_UNPACK_H
#define BG_DATA_UNPACK_H

#include "core/pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A gzip file of one or several members (RFC 1952), unpacked into the pool. `where` names the file
 * in errors. */
bg_status bg_gunzip(bg_pool *pool, const char *data, size_t size, const char *where,
                    const char **out, size_t *out_size, bg_error *err);

/* How a page of a Parquet file is compressed, numbered as in its footer. */
typedef enum {
    BG_CODEC_NONE,
    BG_CODEC_SNAPPY,
    BG_CODEC_GZIP,
    BG_CODEC_LZO,
    BG_CODEC_BROTLI,
    BG_CODEC_LZ4,
    BG_CODEC_ZSTD,
    BG_CODEC_LZ4_RAW,
    BG_CODEC_COUNT,
} bg_codec;

/* The codec's name, and whether this build reads it. */
const char *bg_codec_name(bg_codec codec);
bool bg_codec_is_known(bg_codec codec);

/* `size` bytes of a page into the pool; they must come to exactly out_size. More than the codec can
 * make of that many bytes is refused before memory is taken. BG_CODEC_NONE is handed out in place.
 */
bg_status bg_unpack(bg_pool *pool, bg_codec codec, const uint8_t *data, size_t size,
                    const char *where, size_t out_size, const uint8_t **out, bg_error *err);

#endif
