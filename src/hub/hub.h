/* Models and data sets from the Hugging Face Hub, kept in the cache that huggingface_hub keeps:
 * what either has downloaded the other finds (docs/hub.md).
 *
 * Environment: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH,
 * HF_HUB_OFFLINE, the proxy variables of curl, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE,
 * SSL_CERT_DIR. With HF_HUB_OFFLINE no socket is opened. */
#ifndef BG_HUB_HUB_H
#define BG_HUB_HUB_H

#include "core/error.h"

#include <stdbool.h>

/* Finds a model: a path that exists is returned as it is; so is one that could be no name on the
 * Hub, for the caller to say what it misses there. Otherwise "NAME", "ORG/NAME",
 * "ORG/NAME@REVISION" are pulled (bg_pull), and the directory of their snapshot returned.
 * `config_only`: config.json and the tokenizer's files, without weights. *directory is released
 * with bg_free. */
bg_status bg_hub_resolve_model(const char *name_or_path, bool config_only, bg_progress progress,
                               char **directory, bg_error *err);

/* One file of a data set's repository; `revision` may be NULL for "main". *path is released with
 * bg_free. */
bg_status bg_hub_dataset_file(const char *repo, const char *revision, const char *file,
                              bg_progress progress, char **path, bg_error *err);

#endif
