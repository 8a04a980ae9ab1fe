/* Making and freeing runs, and what their names may be. */
#include "runner/run/run.h"
#include "storage/keys.h"

enum { GRACE_DEFAULT_S = 10 };

static void artifact_free(gpointer data)
{
    struct run_artifact *artifact = data;

    g_free(artifact->path);
    g_free(artifact);
}

static void dep_free(gpointer data)
{
    struct run_dep *dep = data;

    g_free(dep->repo);
    g_free(dep->run);
    g_free(dep->path);
    g_free(dep);
}

struct run *run_new(const char *repo, const char *name)
{
    struct run *run = g_new0(struct run, 1);

    run->repo = g_strdup(repo);
    run->name = g_strdup(name);
    run->artifacts = g_ptr_array_new_with_free_func(artifact_free);
    run->deps = g_ptr_array_new_with_free_func(dep_free);
    run->id = g_uuid_string_random();
    run->grace_s = GRACE_DEFAULT_S;
    run->attempt = 1;
    run->exit_code = -1;
    return run;
}

void run_free(struct run *run)
{
    if (!run)
        return;
    g_free(run->repo);
    g_free(run->name);
    g_free(run->workflow);
    g_free(run->provider);
    g_free(run->engine);
    g_free(run->user);
    g_free(run->code_sha256);
    g_free(run->working_dir);
    g_strfreev(run->commands);
    g_strfreev(run->args);
    g_strfreev(run->env);
    g_strfreev(run->ports);
    g_strfreev(run->cache);
    g_free(run->python);
    g_strfreev(run->setup);
    g_free(run->ide_version);
    resources_clear(&run->resources);
    g_free(run->image);
    g_free(run->home_dir);
    g_strfreev(run->entrypoint);
    g_free(run->registry_username);
    g_free(run->registry_password);
    g_ptr_array_unref(run->artifacts);
    g_ptr_array_unref(run->deps);
    g_free(run->id);
    g_free(run->reason);
    g_free(run->owner.host);
    g_free(run->owner.machine);
    g_free(run->owner.work_dir);
    g_free(run->engine_job);
    g_free(run->waiting);
    g_free(run->write_id);
    g_free(run->etag);
    g_free(run);
}

void run_add_artifact(struct run *run, const char *path, bool mount)
{
    struct run_artifact *artifact = g_new0(struct run_artifact, 1);

    artifact->path = g_strdup(path);
    artifact->mount = mount;
    g_ptr_array_add(run->artifacts, artifact);
}

void run_add_dep(struct run *run, const char *repo, const char *from, const char *path, bool mount)
{
    struct run_dep *dep = g_new0(struct run_dep, 1);

    dep->repo = g_strdup(repo);
    dep->run = g_strdup(from);
    dep->path = g_strdup(path);
    dep->mount = mount;
    g_ptr_array_add(run->deps, dep);
}

bool run_name_is_valid(const char *name)
{
    return keys_name_is_valid(name);
}

int64_t run_now_ms(void)
{
    return g_get_real_time() / 1000;
}

char *run_artifact_prefix(const char *repo, const char *name, const char *path)
{
    g_autofree char *all = keys_artifacts(repo, name);

    while (g_str_has_prefix(path, "./") || g_str_has_prefix(path, "~/") || *path == '/')
        path += *path == '/' ? 1 : 2;
    return g_strdup_printf("%s%s%s", all, path, g_str_has_suffix(path, "/") ? "" : "/");
}
