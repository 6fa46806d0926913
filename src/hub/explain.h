/* What an answer of the Hub that is no success means for the user, in one sentence. */
#ifndef BG_HUB_EXPLAIN_H
#define BG_HUB_EXPLAIN_H

#include "hub/http.h"
#include "hub/names.h"

/* `file` is the file asked for, or NULL for the repository. Returns the error's status. */
bg_status bg_hub_explain(const bg_hub_settings *settings, const bg_repo *repo, const char *file,
                         const bg_reply *reply, bg_error *err);

#endif
