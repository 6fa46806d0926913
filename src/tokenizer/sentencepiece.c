#include "tokenizer/sentencepiece.h"

#include "core/alloc.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocab.h"

#include <math.h>
#include <string.h>

/* Field numbers of sentencepiece_model.proto. */
enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL_TYPE = 3, TRAINER_BYTE_FALLBACK = 35 };
enum {
    NORMALIZER_CHARSMAP = 2,
    NORMALIZER_ADD_DUMMY_PREFIX = 3,
    NORMALIZER_REMOVE_EXTRA_WHITESPACES = 4,
    NORMALIZER_ESCAPE_WHITESPACES = 5,
};
enum { UNIGRAM = 1, BPE = 2 };

/* Pieces come from words and are short; the trainer's own limit is 512 bytes. */
enum { LONGEST_PIECE = 8192 };

static bg_status damaged(const char *where, const char *why, bg_error *err)
{
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: %s; this is no SentencePiece model, or it is damaged, download it again",
                   where, why);
}

static bg_status read_piece(bg_protobuf message, const char *where, bg_sentencepiece *out,
                            bg_error *err)
{
    bg_protobuf_field f;
    int found;
    *out = (bg_sentencepiece){.text = "", .kind = BG_PIECE_NORMAL};
    while ((found = bg_protobuf_next(&message, &f)) > 0) {
        if (f.number == PIECE_TEXT && f.type == BG_PROTOBUF_BYTES) {
            out->text = (const char *)f.bytes.at;
            out->size = (size_t)(f.bytes.end - f.bytes.at);
        } else if (f.number == PIECE_SCORE && f.type == BG_PROTOBUF_FIXED32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&out->score, &bits, sizeof bits);
        } else if (f.number == PIECE_TYPE && f.type == BG_PROTOBUF_VARINT) {
            if (f.value < BG_PIECE_NORMAL || f.value > BG_PIECE_BYTE)
                return damaged(where, "a piece is of no known type", err);
            out->kind = (bg_piece_kind)f.value;
        }
    }
    if (found < 0) return damaged(where, "a piece is cut short", err);
    if (!out->size || out->size > LONGEST_PIECE)
        return damaged(where, "a piece is empty or longer than any word", err);
    if (bg_utf8_valid(out->text, out->size) != out->size || memchr(out->text, 0, out->size))
        return damaged(where, "a piece is not text in UTF-8", err);
    if (!isfinite(out->score)) return damaged(where, "a piece's score is not a number", err);
    return BG_OK;
}

static bg_status read_trainer(bg_protobuf message, const char *where, bg_sentencepiece_model *out,
                              bg_error *err)
{
    bg_protobuf_field f;
    int found;
    uint64_t type = UNIGRAM;
    while ((found = bg_protobuf_next(&message, &f)) > 0) {
        if (f.type != BG_PROTOBUF_VARINT) continue;
        if (f.number == TRAINER_MODEL_TYPE) type = f.value;
        if (f.number == TRAINER_BYTE_FALLBACK) out->byte_fallback = f.value != 0;
    }
    if (found < 0) return damaged(where, "the settings are cut short", err);
    out->bpe = type == BPE;
    if (type == UNIGRAM || type == BPE) return BG_OK;
    return bg_fail(err, BG_ERR_UNSUPPORTED,
                   "%s: the SentencePiece model is of type %llu, neither Unigram nor BPE; bitgauge "
                   "cannot use this tokenizer",
                   where, (unsigned long long)type);
}

static bg_status read_normalizer(bg_protobuf message, const char *where,
                                 bg_sentencepiece_model *out, bg_error *err)
{
    bg_protobuf_field f;
    int found;
    while ((found = bg_protobuf_next(&message, &f)) > 0) {
        bool flag = f.value != 0;
        if (f.type == BG_PROTOBUF_BYTES && f.number == NORMALIZER_CHARSMAP) out->charsmap = f.bytes;
        if (f.type != BG_PROTOBUF_VARINT) continue;
        if (f.number == NORMALIZER_ADD_DUMMY_PREFIX) out->add_dummy_prefix = flag;
        if (f.number == NORMALIZER_REMOVE_EXTRA_WHITESPACES) out->remove_extra_whitespaces = flag;
        if (f.number == NORMALIZER_ESCAPE_WHITESPACES) out->escape_whitespaces = flag;
    }
    return found < 0 ? damaged(where, "the normalization rules are cut short", err) : BG_OK;
}

/* The pieces, once it is known that there are out->n of them. */
static bg_status read_pieces(bg_protobuf message, const char *where, bg_sentencepiece_model *out,
                             bg_error *err)
{
    bg_protobuf_field f;
    size_t i = 0;
    out->pieces = bg_alloc_array(out->n, sizeof *out->pieces);
    if (!out->pieces) return bg_fail_memory(err, out->n * sizeof *out->pieces, "a vocabulary");
    while (bg_protobuf_next(&message, &f) > 0) {
        if (f.number != MODEL_PIECES || f.type != BG_PROTOBUF_BYTES) continue;
        BG_TRY(read_piece(f.bytes, where, &out->pieces[i], err));
        out->bytes += out->pieces[i].size;
        if (out->pieces[i].kind == BG_PIECE_UNKNOWN) out->unknown = (int32_t)i;
        i++;
    }
    return out->unknown < 0 ? damaged(where, "no piece is the unknown one", err) : BG_OK;
}

bg_status bg_sentencepiece_parse(const uint8_t *data, size_t size, const char *where,
                                 bg_sentencepiece_model *out, bg_error *err)
{
    const bg_protobuf whole = {data, data + size};
    bg_protobuf message = whole;
    bg_protobuf_field f;
    int found;
    *out = (bg_sentencepiece_model){.unknown = -1,
                                    .add_dummy_prefix = true,
                                    .remove_extra_whitespaces = true,
                                    .escape_whitespaces = true};
    while ((found = bg_protobuf_next(&message, &f)) > 0) {
        if (f.type != BG_PROTOBUF_BYTES) continue;
        out->n += f.number == MODEL_PIECES;
        if (f.number == MODEL_TRAINER) BG_TRY(read_trainer(f.bytes, where, out, err));
        if (f.number == MODEL_NORMALIZER) BG_TRY(read_normalizer(f.bytes, where, out, err));
    }
    if (found < 0) return damaged(where, "a field is cut short", err);
    if (!out->n || out->n > BG_MAX_TOKEN_ID / 2) return damaged(where, "there are no pieces", err);
    bg_status status = read_pieces(whole, where, out, err);
    if (status != BG_OK) bg_sentencepiece_free(out);
    return status;
}

void bg_sentencepiece_free(bg_sentencepiece_model *model)
{
    bg_free(model->pieces);
    *model = (bg_sentencepiece_model){0};
}
