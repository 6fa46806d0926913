/* A text cut into pieces: what flows through the tokenizer's pipeline.
 *
 * When encoding, a piece is a stretch of text still to be tokenized (id -1) or an added token that
 * has already been recognised (id >= 0; its text no longer matters). When decoding, each piece is
 * the text of one token. A stage reads one bg_pieces and fills another. */
#ifndef BG_TOKENIZER_PIECES_H
#define BG_TOKENIZER_PIECES_H

#include "core/error.h"
#include "core/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t begin, end; /* bytes of text.data */
    int32_t id;        /* -1: text */
    bool first;        /* the text begins where the whole text did */
} bg_piece;

/* Start from {0}. Failing to get memory sets a flag that bg_pieces_check reports at the end. */
typedef struct {
    bg_text text;
    bg_piece *items; /* (n) */
    size_t n, capacity;
    size_t begin; /* where the piece being written began */
    /* While a step works on a piece: bg_piece.first of it. A step that drops the beginning of its
     * text clears it. */
    bool at_start;
    bool failed;
} bg_pieces;

/* Ends the piece written to `text` since the last one ended. */
void bg_pieces_push(bg_pieces *pieces, int32_t id);
/* The same for a piece of text; nothing happens if it is empty. */
void bg_pieces_cut(bg_pieces *pieces);
/* Appends a piece of text, unless empty. */
void bg_pieces_add(bg_pieces *pieces, const char *bytes, size_t n);
void bg_pieces_clear(bg_pieces *pieces); /* keeps the memory */
void bg_pieces_free(bg_pieces *pieces);
bg_status bg_pieces_check(const bg_pieces *pieces, bg_error *err);

/* The bytes of piece i; never NULL. */
static inline const char *bg_piece_text(const bg_pieces *pieces, size_t i)
{
    return pieces->text.data ? pieces->text.data + pieces->items[i].begin : "";
}

static inline size_t bg_piece_size(const bg_pieces *pieces, size_t i)
{
    return pieces->items[i].end - pieces->items[i].begin;
}

/* A growing list of token ids. Start from {0}. */
typedef struct {
    int32_t *data; /* (n) */
    size_t n, capacity;
    bool failed;
} bg_ids;

void bg_ids_push(bg_ids *ids, int32_t id);
bg_status bg_ids_check(const bg_ids *ids, bg_error *err);

/* A stretch of a text that a pattern matched, or the stretch between two matches. */
typedef struct {
    size_t begin, end;
    bool match;
} bg_match;

/* A growing list of matches that covers a text from its start to its end. Start from {0}. */
typedef struct {
    bg_match *data; /* (n) */
    size_t n, capacity;
    bool failed;
} bg_matches;

void bg_matches_push(bg_matches *matches, size_t begin, size_t end, bool match);
void bg_matches_free(bg_matches *matches);

#endif
