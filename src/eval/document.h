/* One question of a task as text: a context, the continuations to choose from, and which of them is
 * right. Prompts and clean-up are those of lm-evaluation-harness (Gao et al.), zero-shot;
 * docs/tasks.md has them. */
#ifndef BG_EVAL_DOCUMENT_H
#define BG_EVAL_DOCUMENT_H

#include "core/text.h"
#include "data/table.h"

enum { BG_MOST_CHOICES = 16 };

typedef struct {
    bg_text text; /* the context, then the continuations, the space before each included */
    size_t context_size;
    struct {
        size_t begin, size; /* in text */
        size_t characters;  /* of the choice itself, without the space: what acc_norm divides by */
    } choices[BG_MOST_CHOICES];
    size_t n_choices;
    size_t gold;
} bg_document;

/* Makes a document from a row; `columns` are those that the builder's task names, in that order.
 * The document is emptied first and keeps its memory. */
typedef bg_status (*bg_document_builder)(const bg_column *const *columns, size_t row,
                                         bg_document *document, bg_error *err);

bg_status bg_document_sst2(const bg_column *const *columns, size_t row, bg_document *document,
                           bg_error *err);
bg_status bg_document_boolq(const bg_column *const *columns, size_t row, bg_document *document,
                            bg_error *err);
bg_status bg_document_hellaswag(const bg_column *const *columns, size_t row, bg_document *document,
                                bg_error *err);
bg_status bg_document_piqa(const bg_column *const *columns, size_t row, bg_document *document,
                           bg_error *err);
bg_status bg_document_arc(const bg_column *const *columns, size_t row, bg_document *document,
                          bg_error *err);
/* The text without its last word, and that word. */
bg_status bg_document_lambada(const bg_column *const *columns, size_t row, bg_document *document,
                              bg_error *err);

#endif
