#include "runner/provider/python.h"
#include "config/error.h"
#include <string.h>
#include <unistd.h>

static const char TELL[] = "import sys; print('.'.join(map(str, sys.version_info[:3])))";

static bool version_matches(const char *wanted, const char *found)
{
    size_t length = strlen(wanted);

    return strncmp(found, wanted, length) == 0 && (!found[length] || found[length] == '.');
}

/* "3.11.2"; NULL: it is no Python that works. */
static char *version_of(const char *program)
{
    const char *argv[] = {program, "-c", TELL, NULL};
    g_autofree char *out = NULL;
    int status;

    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL,
                      &status, NULL) ||
        status != 0)
        return NULL;
    return g_strdup(g_strstrip(out));
}

/* "3.11" of "3.11.2": what is behind "python" in a program's name. */
static char *minor_of(const char *version)
{
    g_auto(GStrv) parts = g_strsplit(version, ".", 3);

    return parts[0] && parts[1] ? g_strconcat(parts[0], ".", parts[1], NULL) : g_strdup(version);
}

static char *find(const char *version, GError **error)
{
    g_autofree char *minor = minor_of(version);
    g_autofree char *named = g_strconcat("python", minor, NULL);
    const char *names[] = {named, "python3", "python"};
    g_autoptr(GString) seen = g_string_new(NULL);

    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *program = g_find_program_in_path(names[i]);
        g_autofree char *found = program ? version_of(program) : NULL;

        if (found && version_matches(version, found))
            return g_steal_pointer(&program);
        if (found)
            g_string_append_printf(seen, "%s%s is %s", seen->len ? ", " : "", program, found);
    }
    error_set(error, ENOENT,
              "python %s is not on this machine (%s): install python%s, or let another version run "
              "the workflow",
              version, seen->len ? seen->str : "there is no python at all", minor);
    return NULL;
}

bool python_check(const char *version, GError **error)
{
    g_autofree char *program = version ? find(version, error) : NULL;

    return !version || program;
}

static bool make_environment(const char *program, const char *path, GError **error)
{
    const char *argv[] = {program,         "-m", "venv", "--system-site-packages",
                          "--without-pip", path, NULL};
    g_autofree char *said = NULL;
    g_autoptr(GError) why = NULL;
    int status = 0;

    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL,
                      &said, &status, &why))
        return error_set(error, EIO, "%s", why->message);
    if (status == 0)
        return true;
    g_strstrip(said);
    return error_set(error, EIO, "%s -m venv failed: %s", program,
                     *said ? said : "install its venv module");
}

/* The pip of the interpreter, which installs into the environment. */
static bool write_pip(const char *bin, GError **error)
{
    g_autofree char *pip = g_build_filename(bin, "pip", NULL);
    g_autofree char *text = g_strdup("#!/bin/sh\nexec \"${0%/*}/python\" -m pip \"$@\"\n");

    return g_file_set_contents_full(pip, text, -1, G_FILE_SET_CONTENTS_NONE, 0755, error);
}

bool python_prepare(struct launch *launch, GError **error)
{
    const char *version = launch->run->python;
    g_autofree char *program = version ? find(version, error) : NULL;
    g_autofree char *path = g_build_filename(launch->run->owner.work_dir, "venv", NULL);
    g_autofree char *bin = g_build_filename(path, "bin", NULL), *all = NULL;
    const char *before = g_environ_getenv(launch->env, "PATH");

    if (!version)
        return true;
    if (!program || !make_environment(program, path, error) || !write_pip(bin, error))
        return false;
    all = before ? g_strconcat(bin, ":", before, NULL) : g_strdup(bin);
    launch_set(launch, "PATH", all);
    launch_set(launch, "VIRTUAL_ENV", path);
    launch->env = g_environ_unsetenv(launch->env, "PYTHONHOME");
    return true;
}
