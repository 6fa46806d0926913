#include "tokenizer/protobuf.h"

#include "core/varint.h"

#include <stdbool.h>

static bool read_varint(bg_protobuf *p, uint64_t *value)
{
    return bg_read_varint(&p->at, p->end, value);
}

static bool read_fixed(bg_protobuf *p, int bytes, uint64_t *value)
{
    if (p->end - p->at < bytes) return false;
    *value = 0;
    for (int i = 0; i < bytes; i++) *value |= (uint64_t)*p->at++ << (8 * i);
    return true;
}

int bg_protobuf_next(bg_protobuf *message, bg_protobuf_field *field)
{
    uint64_t key, size;
    if (message->at == message->end) return 0;
    if (!read_varint(message, &key) || key >> 3 == 0 || key >> 32) return -1;
    *field = (bg_protobuf_field){.number = (uint32_t)(key >> 3), .type = (int)(key & 7)};
    switch (field->type) {
    case BG_PROTOBUF_VARINT:
        return read_varint(message, &field->value) ? 1 : -1;
    case BG_PROTOBUF_FIXED64:
        return read_fixed(message, 8, &field->value) ? 1 : -1;
    case BG_PROTOBUF_FIXED32:
        return read_fixed(message, 4, &field->value) ? 1 : -1;
    case BG_PROTOBUF_BYTES:
        if (!read_varint(message, &size) || size > (uint64_t)(message->end - message->at))
            return -1;
        field->bytes = (bg_protobuf){message->at, message->at + size};
        message->at += size;
        return 1;
    default:
        return -1;
    }
}
