#include "config/settings.h"

#include "config/autofd.h"
#include "config/error.h"
#include "config/paths.h"
#include "config/schema.h"
#include "config/slurm_options.h"

#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

static const char *const remote_keys[] = {
    "name",   "storage",      "endpoint",         "region", "profile", "engine",
    "cacert", "virtual_host", "unsigned_payload", "slurm",  "default", NULL};
static const char *const slurm_keys[] = {
    "partition", "interruptible_partition", "account", "qos", "time", "submit_host", "options",
    NULL};

struct remote *remote_new(const char *name, const char *storage)
{
    struct remote *remote = g_new0(struct remote, 1);

    remote->name = g_strdup(name);
    remote->storage = g_strdup(storage);
    remote->engine = g_strdup("local");
    return remote;
}

void slurm_settings_clear(struct slurm_settings *slurm)
{
    g_clear_pointer(&slurm->partition, g_free);
    g_clear_pointer(&slurm->interruptible_partition, g_free);
    g_clear_pointer(&slurm->account, g_free);
    g_clear_pointer(&slurm->qos, g_free);
    g_clear_pointer(&slurm->time, g_free);
    g_clear_pointer(&slurm->submit_host, g_free);
    g_clear_pointer(&slurm->options, g_strfreev);
}

bool slurm_submit_host_check(const char *host, GError **error)
{
    if (*host != '-' && *host &&
        strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@._-") ==
            strlen(host))
        return true;
    return error_set(error, EINVAL,
                     "submit host \"%s\": write USER@HOST, or a name of your ~/.ssh/config", host);
}

void remote_free(struct remote *remote)
{
    if (!remote)
        return;
    g_free(remote->name);
    g_free(remote->storage);
    g_free(remote->endpoint);
    g_free(remote->region);
    g_free(remote->profile);
    g_free(remote->engine);
    g_free(remote->cacert);
    slurm_settings_clear(&remote->slurm);
    g_free(remote);
}

void settings_clear(struct settings *settings)
{
    g_clear_pointer(&settings->path, g_free);
    g_clear_pointer(&settings->remotes, g_ptr_array_unref);
}

static bool read_slurm(const char *file, const struct yaml_node *remote,
                       struct slurm_settings *slurm, GError **error)
{
    const struct yaml_node *map = yaml_node_get(remote, "slurm"), *host;
    g_autoptr(GError) why = NULL;

    if (!map)
        return true;
    if (map->kind != YAML_MAP)
        return schema_error(file, map, error, "\"slurm\" must be a map, not %s",
                            yaml_node_kind_name(map));
    if (!schema_check_keys(file, map, slurm_keys, "\"slurm\"", error) ||
        !schema_text(file, map, "partition", &slurm->partition, error) ||
        !schema_text(file, map, "interruptible_partition", &slurm->interruptible_partition,
                     error) ||
        !schema_text(file, map, "account", &slurm->account, error) ||
        !schema_text(file, map, "qos", &slurm->qos, error) ||
        !schema_text(file, map, "time", &slurm->time, error) ||
        !schema_text(file, map, "submit_host", &slurm->submit_host, error) ||
        !schema_texts(file, map, "options", true, &slurm->options, error))
        return false;
    host = yaml_node_get(map, "submit_host");
    for (char **option = slurm->options; option && *option; option++)
        if (!slurm_option_check(*option, &why))
            return schema_error(file, yaml_node_get(map, "options"), error, "%s", why->message);
    return !slurm->submit_host || slurm_submit_host_check(slurm->submit_host, &why) ||
           schema_error(file, host, error, "%s", why->message);
}

static bool read_remote(struct settings *settings, const struct yaml_node *map, GError **error)
{
    const char *file = settings->path;
    struct remote *remote = remote_new(NULL, NULL);

    g_ptr_array_add(settings->remotes, remote);
    if (map->kind != YAML_MAP)
        return schema_error(file, map, error, "a remote is a map with \"name\" and \"storage\"");
    if (!schema_check_keys(file, map, remote_keys, "a remote", error) ||
        !schema_text(file, map, "name", &remote->name, error) ||
        !schema_text(file, map, "storage", &remote->storage, error) ||
        !schema_text(file, map, "endpoint", &remote->endpoint, error) ||
        !schema_text(file, map, "region", &remote->region, error) ||
        !schema_text(file, map, "profile", &remote->profile, error) ||
        !schema_text(file, map, "engine", &remote->engine, error) ||
        !schema_text(file, map, "cacert", &remote->cacert, error) ||
        !schema_bool(file, map, "virtual_host", &remote->virtual_host, error) ||
        !schema_bool(file, map, "unsigned_payload", &remote->unsigned_payload, error) ||
        !read_slurm(file, map, &remote->slurm, error) ||
        !schema_bool(file, map, "default", &remote->is_default, error))
        return false;
    if (!remote->name || !remote->storage)
        return schema_error(file, map, error, "a remote needs \"name\" and \"storage\"");
    return true;
}

bool settings_parse(struct settings *settings, const char *text, size_t size, GError **error)
{
    static const char *const keys[] = {"remotes", NULL};
    g_autoptr(YamlNode) top = yaml_doc_parse(settings->path, text, size, error);
    const struct yaml_node *list;

    if (!top)
        return false;
    if (top->kind != YAML_MAP)
        return schema_error(settings->path, top, error, "expected \"remotes:\" and a list");
    if (!schema_check_keys(settings->path, top, keys, "the file", error))
        return false;
    list = yaml_node_get(top, "remotes");
    if (list && list->kind == YAML_SCALAR && list->is_null)
        return true;
    if (list && list->kind != YAML_LIST)
        return schema_error(settings->path, list, error, "\"remotes\" must be a list");
    for (guint i = 0; list && i < list->items->len; i++)
        if (!read_remote(settings, list->items->pdata[i], error))
            return false;
    return true;
}

bool settings_load(struct settings *settings, GError **error)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) why = NULL;
    gsize size;

    settings->path = dstack_home_path("config.yaml");
    settings->remotes = g_ptr_array_new_with_free_func((GDestroyNotify)remote_free);
    if (!g_file_get_contents(settings->path, &text, &size, &why)) {
        if (g_error_matches(why, G_FILE_ERROR, G_FILE_ERROR_NOENT))
            return true;
        return error_set(error, EIO, "%s; set DSTACK_HOME to a directory of yours", why->message);
    }
    return settings_parse(settings, text, size, error);
}

static void put_text(GString *out, const char *key, const char *value)
{
    GString *quoted;

    if (!value)
        return;
    quoted = g_string_new(value);
    g_string_replace(quoted, "'", "''", 0); /* a single-quoted scalar has no other escape */
    g_string_append_printf(out, "    %s: '%s'\n", key, quoted->str);
    g_string_free(quoted, TRUE);
}

static void put_deeper(GString *out, const char *key, const char *value)
{
    if (!value)
        return;
    g_string_append(out, "  ");
    put_text(out, key, value);
}

static void put_slurm(GString *out, const struct slurm_settings *slurm)
{
    gsize before;

    g_string_append(out, "    slurm:\n");
    before = out->len;
    put_deeper(out, "partition", slurm->partition);
    put_deeper(out, "interruptible_partition", slurm->interruptible_partition);
    put_deeper(out, "account", slurm->account);
    put_deeper(out, "qos", slurm->qos);
    put_deeper(out, "time", slurm->time);
    put_deeper(out, "submit_host", slurm->submit_host);
    if (slurm->options && *slurm->options)
        g_string_append(out, "      options:\n");
    for (char **option = slurm->options; option && *option; option++) {
        g_autoptr(GString) quoted = g_string_new(*option);

        g_string_replace(quoted, "'", "''", 0);
        g_string_append_printf(out, "        - '%s'\n", quoted->str);
    }
    if (out->len == before)
        g_string_truncate(out, before - strlen("    slurm:\n"));
}

bool settings_save(const struct settings *settings, GError **error)
{
    g_autoptr(GString) out = g_string_new("remotes:\n");
    g_autofree char *directory = g_path_get_dirname(settings->path);
    g_autoptr(GError) why = NULL;

    for (guint i = 0; i < settings->remotes->len; i++) {
        const struct remote *remote = settings->remotes->pdata[i];

        if (remote->is_embedded)
            continue;
        g_string_append(out, "  -\n");
        put_text(out, "name", remote->name);
        put_text(out, "storage", remote->storage);
        put_text(out, "endpoint", remote->endpoint);
        put_text(out, "region", remote->region);
        put_text(out, "profile", remote->profile);
        put_text(out, "engine", remote->engine);
        put_text(out, "cacert", remote->cacert);
        if (remote->virtual_host)
            g_string_append(out, "    virtual_host: true\n");
        if (remote->unsigned_payload)
            g_string_append(out, "    unsigned_payload: true\n");
        put_slurm(out, &remote->slurm);
        if (remote->is_default)
            g_string_append(out, "    default: true\n");
    }
    if (g_mkdir_with_parents(directory, 0700) != 0)
        return error_set(error, errno,
                         "cannot make %s (%s): set DSTACK_HOME to a directory of yours", directory,
                         g_strerror(errno));
    if (!g_file_set_contents_full(settings->path, out->str, out->len,
                                  G_FILE_SET_CONTENTS_CONSISTENT, 0600, &why))
        return error_set(error, EIO, "%s", why->message);
    return true;
}

static struct remote *find_named(const struct settings *settings, const char *name)
{
    for (guint i = 0; i < settings->remotes->len; i++) {
        struct remote *remote = settings->remotes->pdata[i];

        if (name ? strcmp(remote->name, name) == 0 : remote->is_default)
            return remote;
    }
    return NULL;
}

struct remote *settings_remote(struct settings *settings, const char *name, bool *embedded,
                               GError **error)
{
    struct remote *found = find_named(settings, name);

    if (!found && !name && settings->remotes->len)
        found = settings->remotes->pdata[0];
    if (!found && !name) {
        g_autofree char *path = dstack_home_path("remote");
        g_autofree char *url = file_url(path);

        found = remote_new("embedded", url);
        found->is_embedded = true;
        g_ptr_array_add(settings->remotes, found);
    }
    *embedded = found && found->is_embedded;
    if (!found)
        error_set(error, ENOENT,
                  "no remote \"%s\"; add it with dstack config --name %s --storage URL", name,
                  name);
    return found;
}

void settings_put(struct settings *settings, struct remote *remote)
{
    struct remote *old = find_named(settings, remote->name);

    if (old) {
        remote->is_default = remote->is_default || old->is_default;
        g_ptr_array_remove(settings->remotes, old);
    }
    if (settings->remotes->len == 0)
        remote->is_default = true;
    for (guint i = 0; remote->is_default && i < settings->remotes->len; i++)
        ((struct remote *)settings->remotes->pdata[i])->is_default = false;
    g_ptr_array_add(settings->remotes, remote);
}

/* Held while the file is read and written; -1: failed. */
static int lock_home(GError **error)
{
    g_autofree char *home = dstack_home();
    int fd;

    if (g_mkdir_with_parents(home, 0700) != 0 ||
        (fd = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        error_set(error, errno, "cannot make %s (%s): set DSTACK_HOME to a directory of yours",
                  home, g_strerror(errno));
        return -1;
    }
    while (flock(fd, LOCK_EX) != 0)
        if (errno != EINTR) {
            error_set_errno(error, errno, "lock %s", home);
            close(fd);
            return -1;
        }
    return fd;
}

bool settings_add(struct remote *remote, GError **error)
{
    g_auto(fd_t) lock = lock_home(error);
    struct settings settings = {0};
    bool ok = lock >= 0 && settings_load(&settings, error);

    if (ok)
        settings_put(&settings, remote);
    else
        remote_free(remote);
    ok = ok && settings_save(&settings, error);
    settings_clear(&settings);
    return ok;
}
