/* A text to score, from a text file or from the column "text" of a data file. */
#ifndef BG_EVAL_TEXT_H
#define BG_EVAL_TEXT_H

#include "core/error.h"
#include "core/text.h"

/* Reads all of it. Line ends ("\r\n", "\r") are read as "\n".
 *
 * Where the name says that it is a table (.tsv, .csv, .json, .jsonl, .parquet, and these with .gz),
 * each row of the column "text" is a line: with a newline behind it if it has none, and an empty
 * one as " \n". So the Hub's WikiText, whose rows are the lines of the raw file with the blank ones
 * emptied, becomes that file again. */
bg_status bg_eval_text_read(const char *path, bg_text *out, bg_error *err);

#endif
