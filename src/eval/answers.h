/* What an encoder-decoder model answers when it is asked about a sentence. */
#ifndef BG_EVAL_ANSWERS_H
#define BG_EVAL_ANSWERS_H

#include "bitgauge/bitgauge.h"
#include "model/model.h"

/* The most tokens of an answer. */
enum { BG_ANSWER_TOKENS = 8 };

/* The greedy answer to `question` followed by a sentence, without special tokens and without white
 * space at its ends; released with bg_free. */
bg_status bg_answer(const bg_model *model, const bg_tokenizer *tokenizer, const char *question,
                    const char *sentence, size_t size, char **answer, bg_error *err);

/* Asks about each sentence of a data file with the columns "sentence" and "label". right[i] (n; the
 * caller releases it with bg_free) is whether the answer is the label's word, 0 "negative" and 1
 * "positive". At most `limit` sentences (0: all). */
bg_status bg_answers_measure(const bg_model *model, const bg_tokenizer *tokenizer,
                             const char *question, const char *path, int64_t limit,
                             bg_progress progress, double **right, size_t *n, bg_error *err);

#endif
