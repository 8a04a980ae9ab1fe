#include "runner/engine/slurm_script.h"
#include "config/error.h"
#include "runner/engine/runner_command.h"
#include "runner/process.h"
#include "storage/store_link.h"
#include <string.h>

#define END "END_OF_THE_NODES_SCRIPT"

static const char *const PROGRAMS[] = {"dstack-runner", "dstack-mount"};

/* On each node. A warning that comes before the runner listens is one that Slurm repeats. */
static const char BODY[] =
    "trap '' TERM\n"
    "home=${DSTACK_HOME:-$HOME/.dstack}\n"
    "fail() {\n"
    "    scontrol update JobId=\"$SLURM_JOB_ID\" Comment=\"dstack: $*\"\n"
    "    echo \"dstack: $*\" >&2\n"
    "    [ -z \"$many\" ] || scancel \"$SLURM_JOB_ID\"\n"
    "    exit 1\n"
    "}\n"
    "fetch() { # NAME SHA256 FROM\n"
    "    [ -x \"$bin/$1\" ] && return\n"
    "    temp=$bin/.$1.$$\n"
    "    mkdir -p \"$bin\" || fail \"$(hostname): cannot make $bin\"\n"
    "    case $3 in\n"
    "    /*) cp \"$3\" \"$temp\" ;;\n"
    "    *)\n"
    "        if command -v curl >/dev/null; then\n"
    "            curl -fsS --retry 3 ${cacert:+--cacert \"$cacert\"} -o \"$temp\" \"$3\"\n"
    "        elif command -v wget >/dev/null; then\n"
    "            wget -q ${cacert:+--ca-certificate=\"$cacert\"} -O \"$temp\" \"$3\"\n"
    "        else\n"
    "            fail \"$(hostname) has neither $programs/$1 nor curl or wget to fetch it\"\n"
    "        fi ;;\n"
    "    esac || fail \"$(hostname): $1 could not be fetched from the store to $bin\"\n"
    "    echo \"$2  $temp\" | sha256sum -c --quiet - || fail \"$(hostname): $1 is damaged\"\n"
    "    chmod 755 \"$temp\" && mv \"$temp\" \"$bin/$1\" || fail \"$(hostname): cannot write "
    "$bin\"\n"
    "}\n"
    "mkdir -p \"$home/runners/$repo\" || fail \"$(hostname): cannot make $home\"\n"
    "exec </dev/null >>\"$home/runners/$repo/$run.log\" 2>&1\n"
    "bin=$programs\n"
    "if ! [ -x \"$bin/dstack-runner\" ] || ! [ -x \"$bin/dstack-mount\" ]; then\n"
    "    bin=$home/bin/$digest\n"
    "    fetch dstack-runner \"$runner_sha256\" \"$runner_from\"\n"
    "    fetch dstack-mount \"$mount_sha256\" \"$mount_from\"\n"
    "fi\n"
    "lacks=$(ldd \"$bin/dstack-runner\" \"$bin/dstack-mount\" 2>/dev/null |\n"
    "    sed -n 's/^[[:space:]]*\\(.*\\) => not found.*/\\1/p' | sort -u | tr '\\n' ' ')\n"
    "[ -z \"$lacks\" ] || fail \"$(hostname) lacks the libraries $lacks\"\n";

static void set(GString *script, const char *name, const char *value)
{
    g_autofree char *quoted = g_shell_quote(value ? value : "");

    g_string_append_printf(script, "%s=%s\n", name, quoted);
}

struct program {
    char *sha256, *link;
};

static void program_clear(struct program *program)
{
    g_free(program->sha256);
    g_free(program->link);
}

static bool upload(struct store *root, const char *key, const char *data, gsize size,
                   GError **error)
{
    bool there;

    return store_has(root, key, &there, error) &&
           (there || store_write(root, key, data, size, NULL, NULL, error));
}

static bool provide(struct store *store, const struct run_root *root, const char *path,
                    struct program *program, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autofree char *data = NULL, *key = NULL;
    gsize size;

    if (!g_file_get_contents(path, &data, &size, &why))
        return error_set(error, EIO, "%s", why->message);
    program->sha256 = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (guchar *)data, size);
    key = g_strconcat("bin/", program->sha256, NULL);
    if (!upload(store, key, data, size, error))
        return false;
    program->link = store_link(root->url, &root->options, key, STORE_LINK_MAX_S, error);
    return program->link != NULL;
}

static char *runner_line(const struct run_root *root, const struct run *run)
{
    g_auto(GStrv) argv = runner_command("", root, run);
    g_autoptr(GString) line = g_string_new("exec \"$bin/dstack-runner\"");

    for (char **word = argv + 1; *word; word++) {
        g_autofree char *quoted = g_shell_quote(*word);

        g_string_append_printf(line, " %s", quoted);
    }
    return g_string_free(g_steal_pointer(&line), FALSE);
}

static char *compose(const struct run_root *root, const struct run *run, const char *directory,
                     const struct program programs[2])
{
    g_autofree char *line = runner_line(root, run);
    g_autofree char *digest =
        g_strdup_printf("%.16s-%.16s", programs[0].sha256, programs[1].sha256);
    g_autoptr(GString) script = g_string_new(NULL);
    bool many = run->lifetime.nodes > 1;

    g_string_append(script, "#!/bin/sh\n");
    if (many) /* the warning goes to the tasks; the shell that waits for them must outlive it */
        g_string_append(
            script, "trap '' TERM\n"
                    "srun --kill-on-bad-exit=0 --wait=0 --ntasks-per-node=1 sh -s <<'" END "'\n");
    set(script, "many", many ? "1" : ""); /* the other ranks cannot do without */
    set(script, "repo", run->repo);
    set(script, "run", run->name);
    set(script, "programs", directory);
    set(script, "digest", digest);
    set(script, "cacert", root->options.cacert);
    set(script, "runner_sha256", programs[0].sha256);
    set(script, "runner_from", programs[0].link);
    set(script, "mount_sha256", programs[1].sha256);
    set(script, "mount_from", programs[1].link);
    g_string_append(script, BODY);
    g_string_append_printf(script, "%s\n", line);
    if (many)
        g_string_append(script, END "\n");
    return g_string_free(g_steal_pointer(&script), FALSE);
}

char *slurm_script(const struct run_root *root, const struct run *run, GError **error)
{
    g_autoptr(Store) store = store_open(root->url, &root->options, error);
    struct program programs[2] = {{NULL, NULL}, {NULL, NULL}};
    g_autofree char *directory = NULL;
    char *script = NULL;
    bool fine = store != NULL;

    for (int i = 0; i < 2 && fine; i++) {
        g_autofree char *path = program_find(PROGRAMS[i], error);

        fine = path && provide(store, root, path, &programs[i], error);
        if (fine && !directory)
            directory = g_path_get_dirname(path);
    }
    if (fine)
        script = compose(root, run, directory, programs);
    program_clear(&programs[0]);
    program_clear(&programs[1]);
    return script;
}
