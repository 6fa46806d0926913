#include "hub/explain.h"

#include "core/alloc.h"

#include <string.h>

static bg_status gated(const bg_repo *repo, const char *page, bool token, bg_error *err)
{
    if (token)
        return bg_fail(
            err, BG_ERR_FILE,
            "%s is gated, and the token's account has no access to it (yet): open %s and "
            "accept its conditions; a fine-grained token must also be allowed to read "
            "gated repositories",
            repo->id, page);
    return bg_fail(err, BG_ERR_FILE,
                   "%s is gated: open %s, accept its conditions, then set HF_TOKEN to a token of "
                   "your account (its settings, \"Access Tokens\")",
                   repo->id, page);
}

static bg_status no_repository(const bg_hub_settings *settings, const bg_repo *repo, bool token,
                               bg_error *err)
{
    return bg_fail(err, BG_ERR_FILE, "%s has no %s %s, or it is private%s; check the name%s",
                   settings->endpoint, repo->type == BG_REPO_MODEL ? "model" : "data set", repo->id,
                   token ? " and HF_TOKEN is not valid for it" : "",
                   token ? " and the token" : ", and for a private one set HF_TOKEN");
}

bg_status bg_hub_explain(const bg_hub_settings *settings, const bg_repo *repo, const char *file,
                         const bg_reply *reply, bg_error *err)
{
    const char *code = reply->error_code;
    const bool token = reply->sent_token;
    char *page = bg_repo_page_url(settings->endpoint, repo);
    bg_status status;
    if (!page) {
        status = bg_fail_memory(err, 256, "an address");
    } else if (strcmp(code, "GatedRepo") == 0) {
        status = gated(repo, page, token, err);
    } else if (strcmp(code, "RevisionNotFound") == 0) {
        status = bg_fail(err, BG_ERR_FILE,
                         "%s has no revision \"%s\"; %s/tree/main lists its branches and tags",
                         repo->id, repo->revision, page);
    } else if (strcmp(code, "EntryNotFound") == 0 && file) {
        status = bg_fail(
            err, BG_ERR_FILE,
            "%s has no file \"%s\" at revision \"%s\"; check the name: %s/tree/%s lists the "
            "files",
            repo->id, file, repo->revision, page, repo->revision);
    } else if (reply->status == 401 && token && strcmp(code, "RepoNotFound") != 0) {
        status = bg_fail(err, BG_ERR_FILE,
                         "%s does not accept the token of HF_TOKEN or of the token file: correct "
                         "it, or remove it where none is needed",
                         settings->endpoint);
    } else if (reply->status == 401 || reply->status == 404) {
        status = no_repository(settings, repo, token, err);
    } else if (reply->status == 403) {
        status =
            bg_fail(err, BG_ERR_FILE, "%s refuses access to %s (%s); see %s", settings->endpoint,
                    repo->id, *reply->message ? reply->message : "403", page);
    } else if (reply->status == 429) {
        status =
            bg_fail(err, BG_ERR_FILE,
                    "%s gets too many requests from here and wants a wait of %.0f s; try later, "
                    "or set HF_TOKEN for a higher limit",
                    settings->endpoint, reply->retry_after);
    } else if (bg_http_passing(reply->status)) {
        status =
            bg_fail(err, BG_ERR_FILE,
                    "%s has a problem of its own (HTTP %ld%s%s), also after several attempts; "
                    "try later",
                    settings->endpoint, reply->status, *reply->message ? ": " : "", reply->message);
    } else {
        status = bg_fail(err, BG_ERR_FILE,
                         "%s answers HTTP %ld%s%s for %s%s%s; check HF_ENDPOINT and the proxy",
                         settings->endpoint, reply->status, *reply->message ? ": " : "",
                         reply->message, repo->id, file ? ", " : "", file ? file : "");
    }
    bg_free(page);
    return status;
}
