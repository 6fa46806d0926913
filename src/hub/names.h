/* Names that come from a user or a server and become parts of URLs and of file names: checked here,
 * once, before either is made of them. */
#ifndef BG_HUB_NAMES_H
#define BG_HUB_NAMES_H

#include <stdbool.h>
#include <stddef.h>

typedef enum { BG_REPO_MODEL, BG_REPO_DATASET } bg_repo_type;

typedef struct {
    bg_repo_type type;
    char id[200];       /* "NAME" or "ORG/NAME" */
    char revision[200]; /* a branch, a tag or a commit; "main" where none was named */
} bg_repo;

/* Reads "[ORG/]NAME[@REVISION]"; false if it is nothing of the kind. */
bool bg_repo_parse(const char *text, bg_repo_type type, bg_repo *out);

/* Whether `path`, from a server, may be a file in a snapshot: relative, no "." or "..", printable
 * ASCII without a backslash. */
bool bg_repo_path_valid(const char *path);

bool bg_is_commit(const char *text); /* 40 hexadecimal digits, in lower case */
bool bg_is_sha256(const char *text); /* 64 of them */

/* An ETag as the header has it ("W/\"abc\"") into `out` without its quotes. False unless it is a
 * commit's or a SHA-256's digits: it becomes the name of the blob, and its check. */
bool bg_etag_parse(const char *header, char out[65]);

/* URLs below `endpoint` (no slash at its end). Owned by the caller; NULL when out of memory. */
char *bg_repo_api_url(const char *endpoint, const bg_repo *repo);
char *bg_repo_file_url(const char *endpoint, const bg_repo *repo, const char *revision,
                       const char *path);
char *bg_repo_page_url(const char *endpoint, const bg_repo *repo);

/* "models--ORG--NAME" */
void bg_repo_folder(const bg_repo *repo, char *out, size_t size);

/* printf into memory of its own; NULL when there is none. */
char *bg_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
