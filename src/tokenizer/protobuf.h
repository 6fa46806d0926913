/* Reading Protocol Buffers' wire format: a message is a list of fields, each a number, a type and a
 * value. https://protobuf.dev/programming-guides/encoding */
#ifndef BG_TOKENIZER_PROTOBUF_H
#define BG_TOKENIZER_PROTOBUF_H

#include <stddef.h>
#include <stdint.h>

/* What is left of a message. */
typedef struct {
    const uint8_t *at, *end;
} bg_protobuf;

typedef enum {
    BG_PROTOBUF_VARINT = 0,
    BG_PROTOBUF_FIXED64 = 1,
    BG_PROTOBUF_BYTES = 2, /* strings and messages, too */
    BG_PROTOBUF_FIXED32 = 5,
} bg_protobuf_type;

typedef struct {
    uint32_t number;
    bg_protobuf_type type;
    uint64_t value;    /* of a varint or a fixed one */
    bg_protobuf bytes; /* inside the message */
} bg_protobuf_field;

/* Reads the next field and moves behind it: 1, or 0 at the end of the message, or -1 where what
 * follows is no field (groups, which nobody writes any more, included). */
int bg_protobuf_next(bg_protobuf *message, bg_protobuf_field *field);

#endif
