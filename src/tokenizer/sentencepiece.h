/* What a SentencePiece model file (tokenizer.model, spiece.model, sentencepiece.bpe.model) says.
 * It is a protocol buffer, sentencepiece_model.proto of github.com/google/sentencepiece. */
#ifndef BG_TOKENIZER_SENTENCEPIECE_H
#define BG_TOKENIZER_SENTENCEPIECE_H

#include "core/error.h"
#include "tokenizer/protobuf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The kinds of pieces, as the file numbers them. */
typedef enum {
    BG_PIECE_NORMAL = 1,
    BG_PIECE_UNKNOWN = 2,
    BG_PIECE_CONTROL = 3, /* stands for nothing in a text: <s>, </s> */
    BG_PIECE_USER_DEFINED = 4,
    BG_PIECE_UNUSED = 5,
    BG_PIECE_BYTE = 6, /* <0x00> to <0xFF> */
} bg_piece_kind;

typedef struct {
    const char *text; /* UTF-8, `size` bytes; in the file's memory */
    size_t size;
    float score;
    bg_piece_kind kind;
} bg_sentencepiece;

typedef struct {
    bg_sentencepiece *pieces; /* (n), by id; owned */
    size_t n, bytes;          /* bytes: of all pieces */
    bool bpe;                 /* else Unigram */
    bool byte_fallback;
    int32_t unknown;      /* id of the unknown piece */
    bg_protobuf charsmap; /* precompiled normalization rules; empty: none */
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
} bg_sentencepiece_model;

/* Reads the file's bytes, which must outlive the model. `where` names it in errors. */
bg_status bg_sentencepiece_parse(const uint8_t *data, size_t size, const char *where,
                                 bg_sentencepiece_model *out, bg_error *err);
void bg_sentencepiece_free(bg_sentencepiece_model *model);

#endif
