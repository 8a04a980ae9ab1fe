/* code, lab, notebook: an IDE in the browser, on a port of this machine's loopback interface.
 *
 * shape:  the setup commands, then the IDE, in one `bash -e`; the first line after the setup is the
 *         URL, with a token that is made for the run.
 * safety: the token is handed over by the environment or in a file of the run's own: not in argv.
 */
#include "config/error.h"
#include "config/random_id.h"
#include "runner/provider/provider.h"
#include "runner/provider/python.h"
#include <string.h>
#include <unistd.h>

struct ide {
    const char *title, *program, *module; /* module: `python3 -m` starts it too; NULL: no */
    const char *install;
    const char *path; /* of the URL, up to the token */
};

static const struct ide CODE = {
    "VS Code", "openvscode-server", NULL,
    "install openvscode-server (github.com/gitpod-io/openvscode-server) and put it in PATH",
    "?tkn="};
static const struct ide LAB = {"JupyterLab", "jupyter-lab", "jupyterlab",
                               "install it (pip install jupyterlab), here or in \"setup\"",
                               "lab?token="};
static const struct ide NOTEBOOK = {"Jupyter Notebook", "jupyter-notebook", "notebook",
                                    "install it (pip install notebook), here or in \"setup\"",
                                    "tree?token="};

static bool has_module(const char *module)
{
    g_autofree char *code = g_strdup_printf("import %s", module);
    const char *argv[] = {"python3", "-c", code, NULL};
    int status = 1;

    return g_spawn_sync(NULL, (char **)argv, NULL,
                        G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL |
                            G_SPAWN_STDERR_TO_DEV_NULL,
                        NULL, NULL, NULL, NULL, &status, NULL) &&
           status == 0;
}

/* What setup installs is not there yet: the script looks again. */
static bool check(const struct ide *ide, const struct run *run, GError **error)
{
    g_autofree char *program = g_find_program_in_path(ide->program);
    g_autofree char *bash = g_find_program_in_path("bash");

    if (!bash)
        return error_set(error, ENOENT, "there is no bash on this machine: install it");
    if (!python_check(run->python, error))
        return false;
    if (program || (run->setup && *run->setup) || (ide->module && has_module(ide->module)))
        return true;
    return error_set(error, ENOENT, "%s is not on this machine: %s", ide->title, ide->install);
}

/* Sets ide (a list of words) to what starts it. */
static void add_search(GString *text, const struct ide *ide)
{
    g_string_append_printf(text, "ide=()\nif command -v %s >/dev/null; then ide=(%s)\n",
                           ide->program, ide->program);
    if (ide->module)
        g_string_append_printf(
            text, "elif python3 -c 'import %s' 2>/dev/null; then ide=(python3 -m %s)\n",
            ide->module, ide->module);
    g_string_append_printf(text, "else echo '%s is not on this machine: %s' >&2; exit 127; fi\n",
                           ide->title, ide->install);
}

static void add_version(GString *text, const struct ide *ide, const char *version)
{
    if (!version)
        return;
    g_string_append_printf(
        text,
        "found=$(\"${ide[@]}\" --version | head -n 1)\n"
        "case \" $found\" in\n"
        "    *\" %s\"|*\" %s.\"*) ;;\n"
        "    *) echo \"the workflow wants version %s of %s; here is $found\" >&2\n"
        "       exit 1 ;;\n"
        "esac\n",
        version, version, version, ide->title);
}

static void add_start(GString *text, const struct ide *ide, unsigned port)
{
    if (ide == &CODE)
        g_string_append_printf(text,
                               "exec \"${ide[@]}\" --host 127.0.0.1 --port %u "
                               "--connection-token-file \"$DSTACK_TOKEN_FILE\"\n",
                               port);
    else
        g_string_append_printf(text,
                               "exec \"${ide[@]}\" --ip=127.0.0.1 --port=%u --port-retries=0 "
                               "--no-browser%s\n",
                               port, geteuid() == 0 ? " --allow-root" : "");
}

static char *write_script(const struct ide *ide, struct launch *launch, const char *token,
                          GError **error)
{
    const struct run *run = launch->run;
    unsigned port = g_array_index(launch->ports, struct launch_port, 0).local;
    g_autofree char *setup = launch_script(launch, run->setup, error);
    g_autofree char *token_file = setup ? launch_write(launch, "token", token, error) : NULL;
    g_autoptr(GString) text = g_string_new(setup);

    if (!token_file)
        return NULL;
    launch_set(launch, "DSTACK_TOKEN_FILE", token_file);
    launch_set(launch, "JUPYTER_TOKEN", token);
    add_search(text, ide);
    add_version(text, ide, run->ide_version);
    g_string_append_printf(text,
                           "echo \"%s: http://127.0.0.1:%u/%s$(cat \"$DSTACK_TOKEN_FILE\")\"\n",
                           ide->title, port, ide->path);
    add_start(text, ide, port);
    return launch_write(launch, "script", text->str, error);
}

static char **prepare(const struct ide *ide, struct launch *launch, GError **error)
{
    g_autofree char *token = random_id();
    g_autofree char *bash = g_find_program_in_path("bash");
    g_autofree char *script = NULL;
    char *argv[] = {bash, "-e", NULL, NULL};

    if (!check(ide, launch->run, error) || !python_prepare(launch, error))
        return NULL;
    script = write_script(ide, launch, token, error);
    argv[2] = script;
    return script ? g_strdupv(argv) : NULL;
}

#define DEFINE_IDE(lower, UPPER)                                                                   \
    static bool lower##_check(const struct run *run, GError **error)                               \
    {                                                                                              \
        return check(&(UPPER), run, error);                                                        \
    }                                                                                              \
    static char **lower##_prepare(struct launch *launch, GError **error)                           \
    {                                                                                              \
        return prepare(&(UPPER), launch, error);                                                   \
    }                                                                                              \
    const struct provider provider_##lower = {.name = #lower,                                      \
                                              .needs_port = true,                                  \
                                              .check = lower##_check,                              \
                                              .prepare = lower##_prepare,                          \
                                              .clean = provider_clean_nothing};

DEFINE_IDE(code, CODE)
DEFINE_IDE(lab, LAB)
DEFINE_IDE(notebook, NOTEBOOK)
