/* Integers packed into bits, as Parquet has them.
 * https://parquet.apache.org/docs/file-format/data-pages/encodings/ */
#ifndef BG_DATA_BITS_H
#define BG_DATA_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Little-endian, from bytes at any address. */
uint32_t bg_read_u32(const uint8_t *at);
uint64_t bg_read_u64(const uint8_t *at);

/* Number `index` of a row of numbers of `width` bits (0 to 64), lowest bit first; bits behind `end`
 * are 0. */
uint64_t bg_unpack_bits(const uint8_t *from, const uint8_t *end, size_t index, unsigned width);

/* The hybrid of runs and packed groups of eight. A copy of the struct remembers a place. */
typedef struct {
    const uint8_t *at, *end;
    unsigned width;        /* 0 to 32 */
    size_t left;           /* values left of the run in hand */
    const uint8_t *packed; /* its bits; NULL: they are all `value` */
    size_t index;
    uint32_t value;
} bg_rle;

/* Reads the next n numbers; false where there are not so many. */
bool bg_rle_read(bg_rle *rle, uint32_t *out, size_t n);

/* DELTA_BINARY_PACKED: exactly n numbers from *at on, which is moved behind them. Sums wrap. */
bool bg_delta_read(const uint8_t **at, const uint8_t *end, int64_t *out, size_t n);

#endif
