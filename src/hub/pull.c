/* What the rest of the program asks of the Hub: a model's directory, a data set's file. */
#include "core/alloc.h"
#include "core/file.h"
#include "core/json.h"
#include "hub/explain.h"
#include "hub/fetch.h"
#include "hub/hub.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- what the cache has ---------------------------------------------------------------------- */

typedef struct {
    const bg_cache *cache;
    const char *commit;
} snapshot;

static bool in_snapshot(const void *context, const char *name)
{
    const snapshot *s = context;
    return bg_cache_has(s->cache, s->commit, name);
}

/* *complete: whether a snapshot has the files that a model cannot do without. */
static bg_status snapshot_complete(const snapshot *s, bool config_only, bool *complete,
                                   bg_error *err)
{
    bool is_index;
    *complete = in_snapshot(s, "config.json");
    if (!*complete || config_only) return BG_OK;
    const char *weights = bg_model_weights(in_snapshot, s, &is_index);
    *complete = weights;
    if (!weights || !is_index) return BG_OK;
    bg_names shards = {0};
    char *path = bg_cache_file(s->cache, s->commit, weights);
    bg_status status =
        path ? bg_model_shards(path, &shards, err) : bg_fail_memory(err, 256, "a file name");
    for (size_t i = 0; i < shards.n; i++)
        if (!in_snapshot(s, shards.items[i])) *complete = false;
    bg_names_free(&shards);
    bg_free(path);
    return status;
}

/* The snapshot that the cache has of the model, if it is complete; else an error. */
static bg_status cached_model(const bg_hub *hub, bool config_only, char commit[41], bg_error *err)
{
    bool complete = false;
    bool known = bg_cache_commit(&hub->cache, hub->repo.revision, commit);
    if (known) {
        const snapshot s = {&hub->cache, commit};
        BG_TRY(snapshot_complete(&s, config_only, &complete, err));
    }
    if (complete) return BG_OK;
    return bg_fail(err, BG_ERR_FILE, "%s, revision \"%s\", is %s in the cache %s", hub->repo.id,
                   hub->repo.revision, known ? "not complete" : "not", hub->settings.cache);
}

/* ---- what the Hub has ------------------------------------------------------------------------ */

static bg_status read_info(const bg_text *body, const char *where, json_t **info, char commit[41],
                           bg_error *err)
{
    bg_status status = bg_json_parse(body->data ? body->data : "", body->size, where, info, err);
    if (status != BG_OK && status != BG_ERR_FORMAT) return status;
    const char *sha = json_string_value(json_object_get(*info, "sha"));
    if (!sha || !bg_is_commit(sha) || !json_is_array(json_object_get(*info, "siblings")))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s does not answer as a Hub does (%s); check HF_ENDPOINT and the proxy, or "
                       "whether this network wants a login first",
                       where, *info ? "no commit, or no list of files" : "this is no JSON");
    memcpy(commit, sha, 41);
    return BG_OK;
}

/* What the Hub says about the repository at its revision: *info (a reference) with its "siblings",
 * and the commit. *away: whether the Hub could not be asked, and the cache may stand in. */
static bg_status ask(bg_hub *hub, json_t **info, char commit[41], bool *away, bg_error *err)
{
    const size_t limit = (size_t)64 << 20;
    bg_text body = {0};
    bg_reply reply = {.size = -1};
    *info = NULL;
    *away = false;
    char *url = bg_repo_api_url(hub->settings.endpoint, &hub->repo);
    if (!url) return bg_fail_memory(err, 256, "an address");
    bg_status status = bg_http_fetch(&hub->http, url, &body, limit, &reply, err);
    if (status == BG_ERR_FILE)
        *away = reply.status == 0;
    else if (status == BG_OK && reply.status == 200)
        status = read_info(&body, url, info, commit, err);
    else if (status == BG_OK) {
        *away = bg_http_passing(reply.status);
        status = bg_hub_explain(&hub->settings, &hub->repo, NULL, &reply, err);
    }
    bg_reply_free(&reply);
    bg_text_free(&body);
    bg_free(url);
    return status;
}

static const json_t *sibling_named(const json_t *siblings, const char *name)
{
    size_t i;
    json_t *sibling;
    json_array_foreach(siblings, i, sibling)
    {
        const char *file = json_string_value(json_object_get(sibling, "rfilename"));
        if (file && strcmp(file, name) == 0) return sibling;
    }
    return NULL;
}

static bool among_siblings(const void *context, const char *name)
{
    return sibling_named(context, name);
}

static int64_t sibling_size(const void *context, const char *name)
{
    const json_t *size = json_object_get(sibling_named(context, name), "size");
    return json_is_integer(size) ? json_integer_value(size) : -1;
}

static bg_status fetch_model(bg_hub *hub, const char *commit, const json_t *siblings,
                             bool config_only, bg_error *err)
{
    bool is_index = false;
    bg_names names = {0}, shards = {0};
    bg_status status = BG_OK;
    const char *weights = bg_model_weights(among_siblings, siblings, &is_index);
    for (const char *const *name = bg_model_small_files; *name && status == BG_OK; name++)
        if (among_siblings(siblings, *name)) status = bg_names_add(&names, *name, err);
    if (status == BG_OK && !among_siblings(siblings, "config.json"))
        status =
            bg_fail(err, BG_ERR_UNSUPPORTED,
                    "%s has no config.json: it is no model that bitgauge can read", hub->repo.id);
    else if (status == BG_OK && !weights && !config_only)
        status = bg_fail(err, BG_ERR_UNSUPPORTED,
                         "%s has neither model.safetensors nor pytorch_model.bin: bitgauge reads "
                         "no other weights",
                         hub->repo.id);
    if (status == BG_OK && !config_only) status = bg_names_add(&names, weights, err);
    if (status == BG_OK) status = bg_hub_fetch(hub, commit, &names, sibling_size, siblings, err);
    if (status == BG_OK && !config_only && is_index) {
        char *path = bg_cache_file(&hub->cache, commit, weights);
        status =
            path ? bg_model_shards(path, &shards, err) : bg_fail_memory(err, 256, "a file name");
        bg_free(path);
        if (status == BG_OK)
            status = bg_hub_fetch(hub, commit, &shards, sibling_size, siblings, err);
    }
    if (status == BG_OK) status = bg_cache_set_commit(&hub->cache, hub->repo.revision, commit, err);
    bg_names_free(&names);
    bg_names_free(&shards);
    return status;
}

/* Says that the cache stands in for the Hub, and why. */
static bg_status say_cached(bg_hub *hub, const char *commit, const char *why, bg_error *err)
{
    return bg_http_note(&hub->http, err, "using the cached %s, commit %.12s: %s", hub->repo.id,
                        commit, why);
}

/* The Hub could not be asked, for the reason of `problem`: the cache may do. */
static bg_status stand_in(bg_hub *hub, bool config_only, char commit[41], const bg_error *problem,
                          bg_error *err)
{
    bg_status status = cached_model(hub, config_only, commit, err);
    if (status == BG_OK) return say_cached(hub, commit, problem->message, err);
    return status == BG_ERR_FILE ? bg_fail(err, problem->status, "%s", problem->message) : status;
}

static bg_status pull_model(bg_hub *hub, bool config_only, char commit[41], bg_error *err)
{
    json_t *info = NULL;
    bool away = false;
    if (hub->settings.offline) {
        bg_status status = cached_model(hub, config_only, commit, err);
        if (status != BG_ERR_FILE) return status;
        char why[sizeof err->message];
        snprintf(why, sizeof why, "%s", err ? err->message : "");
        return bg_fail(err, status, "%.800s; HF_HUB_OFFLINE keeps it from being downloaded", why);
    }
    bg_error problem = {0};
    bg_status status = ask(hub, &info, commit, &away, &problem);
    if (status == BG_OK)
        status = fetch_model(hub, commit, json_object_get(info, "siblings"), config_only, err);
    else
        status = away ? stand_in(hub, config_only, commit, &problem, err)
                      : bg_fail(err, status, "%s", problem.message);
    json_decref(info);
    return status;
}

static bg_status pull(const char *name, bool config_only, bool verify, bg_progress progress,
                      char **directory, bg_error *err)
{
    bg_repo repo;
    bg_hub hub;
    char commit[41];
    *directory = NULL;
    bg_json_init();
    if (!bg_repo_parse(name, BG_REPO_MODEL, &repo))
        return bg_fail(err, BG_ERR_USAGE,
                       "\"%s\" is no name of a model on the Hub; one looks like gpt2, "
                       "facebook/opt-125m or facebook/opt-125m@main",
                       name);
    bg_status status = bg_hub_open(&repo, progress, &hub, err);
    hub.verify = verify;
    if (status == BG_OK) status = pull_model(&hub, config_only, commit, err);
    if (status == BG_OK) {
        *directory = bg_cache_snapshot(&hub.cache, commit);
        if (!*directory) status = bg_fail_memory(err, 256, "a file name");
    }
    bg_hub_close(&hub);
    return status;
}

BG_API bg_status bg_pull(const char *name, bool config_only, bg_progress progress, char **directory,
                         bg_error *err)
{
    return pull(name, config_only, true, progress, directory, err);
}

bg_status bg_hub_resolve_model(const char *name_or_path, bool config_only, bg_progress progress,
                               char **directory, bg_error *err)
{
    bg_repo repo;
    *directory = NULL;
    if (access(name_or_path, F_OK) == 0 || !bg_repo_parse(name_or_path, BG_REPO_MODEL, &repo)) {
        *directory = bg_strdup(name_or_path);
        return *directory ? BG_OK : bg_fail_memory(err, strlen(name_or_path), "a path");
    }
    bg_status status = pull(name_or_path, config_only, false, progress, directory, err);
    if (status == BG_ERR_FILE)
        bg_error_context(err, "there is no file or directory %s, and as a model of the Hub",
                         name_or_path);
    return status;
}

BG_API bg_status bg_find_model(const char *model, bool config_only, bg_progress progress,
                               char **directory, bg_error *err)
{
    return bg_hub_resolve_model(model, config_only, progress, directory, err);
}

/* ---- data sets ------------------------------------------------------------------------------- */

static int64_t size_of_head(const void *context, const char *name)
{
    (void)name;
    return ((const bg_reply *)context)->size;
}

static bg_status pull_file(bg_hub *hub, const char *file, char commit[41], bg_error *err)
{
    const char *revision = hub->repo.revision;
    const bool known = bg_cache_commit(&hub->cache, revision, commit);
    const bool cached = known && bg_cache_has(&hub->cache, commit, file);
    if (cached && (hub->settings.offline || bg_is_commit(revision))) return BG_OK;
    if (hub->settings.offline)
        return bg_fail(err, BG_ERR_FILE,
                       "%s of the data set %s is not in the cache %s, and HF_HUB_OFFLINE keeps it "
                       "from being downloaded",
                       file, hub->repo.id, hub->settings.cache);
    bg_error problem = {0};
    bg_reply head;
    bg_status status = bg_hub_head(hub, revision, file, &head, &problem);
    const bool away = status == BG_ERR_FILE && (head.status == 0 || bg_http_passing(head.status));
    if (status == BG_OK && !*head.commit)
        status = bg_fail(&problem, BG_ERR_FORMAT,
                         "%s does not answer as a Hub does (no X-Repo-Commit); check HF_ENDPOINT "
                         "and the proxy",
                         hub->settings.endpoint);
    if (status == BG_OK) {
        bg_names names = {&(char *){(char *)file}, 1};
        memcpy(commit, head.commit, 41);
        status = bg_hub_fetch(hub, commit, &names, size_of_head, &head, err);
        if (status == BG_OK) status = bg_cache_set_commit(&hub->cache, revision, commit, err);
    } else if (away && cached) {
        status = say_cached(hub, commit, problem.message, err);
    } else {
        status = bg_fail(err, status, "%s", problem.message);
    }
    bg_reply_free(&head);
    return status;
}

bg_status bg_hub_dataset_file(const char *repo, const char *revision, const char *file,
                              bg_progress progress, char **path, bg_error *err)
{
    bg_repo parsed;
    bg_hub hub;
    char commit[41];
    *path = NULL;
    bg_json_init();
    char *name = bg_print("%s@%s", repo, revision ? revision : "main");
    if (!name) return bg_fail_memory(err, 256, "a name");
    bool good = bg_repo_parse(name, BG_REPO_DATASET, &parsed) && bg_repo_path_valid(file);
    bg_free(name);
    if (!good)
        return bg_fail(err, BG_ERR_USAGE, "%s, \"%s\": this is no file of a data set on the Hub",
                       repo, file);
    bg_status status = bg_hub_open(&parsed, progress, &hub, err);
    if (status == BG_OK) status = pull_file(&hub, file, commit, err);
    if (status == BG_OK) {
        *path = bg_cache_file(&hub.cache, commit, file);
        if (!*path) status = bg_fail_memory(err, 256, "a file name");
    }
    bg_hub_close(&hub);
    return status;
}
