#include "runner/submit/deps.h"
#include "config/error.h"
#include "config/repo.h"
#include "config/workflow.h"
#include "runner/run/kept.h"
#include "runner/run/run_store.h"
#include "storage/tags.h"
#include <string.h>

/* What a dep names: NAME in REPO. */
struct named {
    const char *text; /* as it was written */
    char *repo, *name;
};

static void named_clear(struct named *named)
{
    g_free(named->repo);
    g_free(named->name);
}
typedef struct named Named;
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Named, named_clear)

static bool parse(const char *text, const char *own_repo, struct named *named, GError **error)
{
    const char *slash = strrchr(text, '/');
    g_autofree char *other = slash ? g_strndup(text, (size_t)(slash - text)) : NULL;

    named->text = text;
    named->name = g_strdup(slash ? slash + 1 : text);
    named->repo = other ? repo_id_of_name(other) : g_strdup(own_repo);
    return (named->repo && run_name_is_valid(named->repo) && run_name_is_valid(named->name)) ||
           error_set(error, EINVAL,
                     "dep %s: write NAME, or USER/REPO/NAME for another repo's, or REPO/NAME with "
                     "what dstack init prints there",
                     text);
}

/* The newest run that is done of a workflow; the caller's. */
static char *last_done(struct store *root, const struct named *workflow, GError **error)
{
    g_autoptr(GPtrArray) runs = run_store_list(root, workflow->repo, error);

    for (guint i = 0; runs && i < runs->len; i++) {
        const struct run_summary *summary = runs->pdata[i];
        g_autoptr(Run) run = NULL;

        if (summary->status != RUN_DONE || !g_str_has_prefix(workflow->name, summary->workflow))
            continue;
        run = run_store_load(root, workflow->repo, summary->name, error);
        if (!run)
            return NULL;
        if (g_strcmp0(run->workflow, workflow->name) == 0) /* a listing has its beginning only */
            return g_strdup(run->name);
    }
    if (runs)
        error_set(error, ENOENT,
                  "dep %s: no run of it is done yet in %s: run it first, or get one with dstack "
                  "%s",
                  workflow->text, workflow->repo,
                  g_str_has_prefix(store_url(root), "file:") ? "pull" : "push");
    return NULL;
}

/* A run that goes on has not made everything yet. Its document may be gone, if a tag is there. */
static bool check_finished(struct store *root, const struct named *named, const char *run_name,
                           bool is_tag, GError **error)
{
    g_autoptr(GError) missing = NULL;
    g_autoptr(Run) run = run_store_refresh(root, named->repo, run_name, &missing);

    if (run)
        return run_status_is_final(run->status) ||
               error_set(error, EBUSY, "dep %s: run %s is %s: wait for its end", named->text,
                         run_name, run_status_name(run->status));
    if (is_tag && error_is(missing, ENOENT))
        return true;
    g_propagate_prefixed_error(error, g_steal_pointer(&missing), "dep %s: ", named->text);
    return false;
}

static bool add_artifacts(struct run *run, struct store *root, const struct named *named,
                          const char *producer, const struct tag *tag, bool mount, GError **error)
{
    g_auto(GStrv) paths = kept_artifacts(root, named->repo, producer, tag, error);
    bool is_own = strcmp(named->repo, run->repo) == 0;

    for (char **path = paths; path && *path; path++)
        run_add_dep(run, is_own ? NULL : named->repo, producer, *path, mount);
    return paths && (*paths || error_set(error, ENOENT, "dep %s: run %s has no artifacts",
                                         named->text, producer));
}

static struct tag *load_tag(struct store *root, const struct named *named, GError **error)
{
    g_autoptr(GError) why = NULL;
    struct tag *tag = tag_load(root, named->repo, named->name, &why);

    if (!tag && error_is(why, ENOENT))
        error_set(
            error, ENOENT,
            "dep :%s: there is no such tag in %s: see dstack tags, or get one with dstack pull",
            named->text, named->repo);
    else if (!tag)
        g_propagate_prefixed_error(error, g_steal_pointer(&why), "dep :%s: ", named->text);
    return tag;
}

bool deps_add(struct run *run, struct store *root, const struct workflow_dep *dep, GError **error)
{
    const char *text = dep->workflow ? dep->workflow : dep->tag ? dep->tag : dep->run;
    g_auto(Named) named = {0};
    g_autofree char *producer = NULL;
    g_autoptr(Tag) tag = NULL;

    if (!parse(text, run->repo, &named, error))
        return false;
    if (dep->workflow) {
        producer = last_done(root, &named, error);
    } else if (dep->tag) {
        tag = load_tag(root, &named, error);
        producer = tag ? g_strdup(tag->run) : NULL;
    } else {
        producer = g_strdup(named.name);
    }
    return producer && (dep->workflow || check_finished(root, &named, producer, tag, error)) &&
           add_artifacts(run, root, &named, producer, tag, dep->mount, error);
}

/* --- what lands where --- */

/* "~/x" and "/home/me/x" are one place. */
static char *place(const char *path)
{
    return g_str_has_prefix(path, "~/") ? g_build_filename(g_get_home_dir(), path + 2, NULL)
                                        : g_strdup(path);
}

static bool is_within(const char *path, const char *top)
{
    g_autofree char *inner = place(path), *outer = place(top);
    size_t length = strlen(outer);

    return strncmp(inner, outer, length) == 0 && (inner[length] == '/' || inner[length] == '\0');
}

static bool check_two(const struct run_dep *one, const struct run_dep *two, GError **error)
{
    if (!is_within(one->path, two->path) && !is_within(two->path, one->path))
        return true;
    return error_set(error, EINVAL,
                     "deps %s of %s and %s of %s would land in one place: leave out one of them",
                     one->path, one->run, two->path, two->run);
}

/* What is copied may lie where the run goes on with it as its own artifact; mounts need their
 * directory for themselves, and take no others where one may not write. */
static bool check_artifact(const struct run_dep *dep, const struct run_artifact *artifact,
                           GError **error)
{
    bool inside = is_within(dep->path, artifact->path),
         around = is_within(artifact->path, dep->path);

    if ((artifact->mount && inside) || (dep->mount && (inside || around)))
        return error_set(error, EINVAL,
                         "dep %s of %s and artifact %s would land in one place, and one of them is "
                         "mounted: give the artifact another path",
                         dep->path, dep->run, artifact->path);
    return true;
}

bool deps_check(const struct run *run, GError **error)
{
    for (guint i = 0; i < run->deps->len; i++) {
        for (guint j = 0; j < i; j++)
            if (!check_two(run->deps->pdata[j], run->deps->pdata[i], error))
                return false;
        for (guint j = 0; j < run->artifacts->len; j++)
            if (!check_artifact(run->deps->pdata[i], run->artifacts->pdata[j], error))
                return false;
    }
    return true;
}
