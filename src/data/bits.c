#include "data/bits.h"

#include "core/checked.h"
#include "core/varint.h"

#include <string.h>

uint32_t bg_read_u32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint64_t bg_read_u64(const uint8_t *at)
{
    return bg_read_u32(at) | (uint64_t)bg_read_u32(at + 4) << 32;
}

uint64_t bg_unpack_bits(const uint8_t *from, const uint8_t *end, size_t index, unsigned width)
{
    if (width == 0) return 0;
    size_t bit = index * width, byte = bit / 8, size = (size_t)(end - from);
    unsigned shift = bit % 8;
    uint8_t bytes[9] = {0};
    const uint8_t *at = from + byte;
    if (byte + sizeof bytes > size) {
        if (byte < size) memcpy(bytes, at, size - byte);
        at = bytes;
    }
    uint64_t value = bg_read_u64(at) >> shift;
    if (shift + width > 64) value |= (uint64_t)at[8] << (64 - shift);
    return width == 64 ? value : value & (((uint64_t)1 << width) - 1);
}

static bool next_run(bg_rle *r)
{
    uint64_t head;
    if (!bg_read_varint(&r->at, r->end, &head) || head >> 1 > UINT32_MAX) return false;
    size_t n = (size_t)(head >> 1), room = (size_t)(r->end - r->at);
    if (head & 1) {
        /* n groups of 8 values take n * width bytes; the last may be cut where no value is left */
        size_t bytes = bg_min_size(n * r->width, room);
        r->packed = r->at;
        r->index = 0;
        r->left = r->width ? bg_min_size(8 * n, 8 * bytes / r->width) : 8 * n;
        r->at += bytes;
    } else {
        size_t bytes = (r->width + 7) / 8;
        if (bytes > room) return false;
        r->packed = NULL;
        r->left = n;
        r->value = 0;
        for (size_t i = 0; i < bytes; i++) r->value |= (uint32_t)r->at[i] << 8 * i;
        r->at += bytes;
    }
    return true;
}

bool bg_rle_read(bg_rle *r, uint32_t *out, size_t n)
{
    while (n > 0) {
        while (r->left == 0)
            if (!next_run(r)) return false;
        size_t count = bg_min_size(n, r->left);
        for (size_t i = 0; i < count; i++)
            out[i] = r->packed ? (uint32_t)bg_unpack_bits(r->packed, r->at, r->index + i, r->width)
                               : r->value;
        r->index += count;
        r->left -= count;
        out += count;
        n -= count;
    }
    return true;
}

/* One block of at most n numbers, each the sum of the one before it (*last) and a difference. */
static bool read_block(const uint8_t **at, const uint8_t *end, size_t miniblocks, size_t each,
                       uint64_t *last, int64_t *out, size_t n)
{
    uint64_t zigzag;
    if (!bg_read_varint(at, end, &zigzag) || (size_t)(end - *at) < miniblocks) return false;
    uint64_t least = (uint64_t)bg_unzigzag(zigzag);
    const uint8_t *widths = *at;
    *at += miniblocks;
    /* Miniblocks behind the last number are not there. */
    for (size_t i = 0; i < miniblocks && n > 0; i++) {
        size_t bytes = each / 8 * widths[i], count = bg_min_size(n, each);
        if (widths[i] > 64 || bytes > (size_t)(end - *at)) return false;
        for (size_t k = 0; k < count; k++) {
            *last += least + bg_unpack_bits(*at, *at + bytes, k, widths[i]);
            *out++ = (int64_t)*last;
        }
        *at += bytes;
        n -= count;
    }
    return true;
}

bool bg_delta_read(const uint8_t **at, const uint8_t *end, int64_t *out, size_t n)
{
    enum { MAX_BLOCK = 1 << 20 };
    uint64_t block, miniblocks, total, zigzag;
    if (!bg_read_varint(at, end, &block) || !bg_read_varint(at, end, &miniblocks) ||
        !bg_read_varint(at, end, &total) || !bg_read_varint(at, end, &zigzag))
        return false;
    if (block == 0 || block > MAX_BLOCK || miniblocks == 0 || block % miniblocks ||
        block / miniblocks % 8 || total != n)
        return false;
    if (n == 0) return true;
    uint64_t last = (uint64_t)bg_unzigzag(zigzag);
    *out++ = (int64_t)last;
    n--;
    while (n > 0) {
        size_t count = bg_min_size(n, (size_t)block);
        if (!read_block(at, end, (size_t)miniblocks, (size_t)(block / miniblocks), &last, out,
                        count))
            return false;
        out += count;
        n -= count;
    }
    return true;
}
