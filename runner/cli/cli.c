#include "runner/cli/cli.h"

#include "config/error.h"
#include "config/paths.h"
#include "storage/keys.h"
#include "storage/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Who asks for the options of a command; NULL: nobody does. */
static cli_take_entries *asked_by;
static void *asked_user;

void cli_ask_entries(const struct command *command, cli_take_entries *take, void *user)
{
    g_autofree char *name = g_strdup(command->name);
    char *argv[] = {name, NULL};

    asked_by = take;
    asked_user = user;
    command->run(command, 1, argv);
    asked_by = NULL;
}

bool cli_give_entries(const GOptionEntry *entries)
{
    if (asked_by)
        asked_by(entries, asked_user);
    return asked_by != NULL;
}

bool cli_parse(const struct command *command, const GOptionEntry *entries, int *argc, char ***argv,
               int least, int most, int *status)
{
    g_autoptr(GOptionContext) context = g_option_context_new(command->arguments);
    g_autoptr(GError) error = NULL;
    g_autofree char *name = g_strconcat("dstack ", command->name, NULL);

    *status = 0;
    if (cli_give_entries(entries))
        return false;
    g_set_prgname(name);
    g_option_context_set_summary(context, command->summary);
    if (entries)
        g_option_context_add_main_entries(context, entries, NULL);
    *status = 2;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        g_autofree char *text = g_strdup_printf("%s; see %s --help", error->message, name);

        cli_say(name, text);
        return false;
    }
    if (*argc > 1 && strcmp((*argv)[1], "--") == 0) {
        memmove(*argv + 1, *argv + 2, (*argc - 1) * sizeof(**argv));
        (*argc)--;
    }
    if (*argc - 1 < least || (most >= 0 && *argc - 1 > most)) {
        fprintf(stderr, "usage: %s [OPTION…] %s\n", name, command->arguments);
        return false;
    }
    return true;
}

int cli_fail(GError *error)
{
    if (error)
        cli_say("dstack", error->message);
    g_clear_error(&error);
    return 1;
}

/* The default one first. */
static void list_remotes(struct cli_roots *roots)
{
    bool none = roots->settings.remotes->len == 0, embedded;
    struct remote *first = settings_remote(&roots->settings, NULL, &embedded, NULL);

    roots->remotes = g_ptr_array_new();
    roots->opened = g_ptr_array_new_with_free_func((GDestroyNotify)store_unref);
    if (none) {
        g_autofree char *path = dstack_home_path("remote");

        if (!g_file_test(path, G_FILE_TEST_IS_DIR))
            return;
    }
    g_ptr_array_add(roots->remotes, first);
    for (guint i = 0; i < roots->settings.remotes->len; i++)
        if (roots->settings.remotes->pdata[i] != first)
            g_ptr_array_add(roots->remotes, roots->settings.remotes->pdata[i]);
    g_ptr_array_set_size(roots->opened, (gint)roots->remotes->len);
}

bool cli_roots_open(struct cli_roots *roots, GError **error)
{
    memset(roots, 0, sizeof(*roots));
    if (!repo_find(".", &roots->repo, error) || !settings_load(&roots->settings, error))
        return false;
    list_remotes(roots);
    roots->local = local_open(error);
    return roots->local != NULL;
}

void cli_roots_clear(struct cli_roots *roots)
{
    store_unref(roots->local);
    g_clear_pointer(&roots->opened, g_ptr_array_unref);
    g_clear_pointer(&roots->remotes, g_ptr_array_unref);
    settings_clear(&roots->settings);
    repo_clear(&roots->repo);
}

unsigned cli_roots_count(const struct cli_roots *roots)
{
    return 1 + roots->remotes->len;
}

struct store *cli_root(struct cli_roots *roots, unsigned i, GError **error)
{
    if (i == 0)
        return roots->local;
    if (!roots->opened->pdata[i - 1])
        roots->opened->pdata[i - 1] = remote_open(roots->remotes->pdata[i - 1], error);
    return roots->opened->pdata[i - 1];
}

static void say_which(const struct cli_roots *roots, unsigned i, const GError *why)
{
    const struct remote *remote = i ? roots->remotes->pdata[i - 1] : NULL;
    g_autofree char *name =
        remote ? g_strconcat("remote ", remote->name, NULL) : g_strdup("this machine");
    const char *message = why ? why->message : "it failed";
    g_autofree char *text = g_str_has_prefix(message, name) /* as of one that could not be opened */
                                ? g_strdup(message)
                                : g_strdup_printf("%s: %s", name, message);

    cli_say("dstack", text);
}

bool cli_each_root(struct cli_roots *roots, cli_each *each, void *user)
{
    bool all = true;

    for (unsigned i = 0; i < cli_roots_count(roots); i++) {
        g_autoptr(GError) why = NULL;
        struct store *root = cli_root(roots, i, &why);

        if (root && each(roots, root, user, &why))
            continue;
        say_which(roots, i, why);
        all = false;
    }
    return all;
}

bool cli_resolve_in(struct store *root, const char *repo, const char *name, char **run,
                    struct tag **tag, GError **error)
{
    bool is_tag = *name == ':', has = false;
    g_autoptr(GError) missing = NULL;
    g_autoptr(Tag) found = NULL;

    *run = NULL;
    if (tag)
        *tag = NULL;
    if (!is_tag && !keys_name_is_valid(name))
        return error_set(error, EINVAL, "\"%s\" cannot be a run's name", name);
    if (is_tag)
        found = tag_load(root, repo, name + 1, &missing);
    if (is_tag ? !found && !error_is(missing, ENOENT)
               : !run_store_has(root, repo, name, &has, &missing)) {
        g_propagate_error(error, g_steal_pointer(&missing));
        return false;
    }
    if (!found && !has)
        return error_set(error, ENOENT, "no %s %s in repo %s; see dstack %s",
                         is_tag ? "tag" : "run", name + is_tag, repo, is_tag ? "tags" : "ps -a");
    *run = g_strdup(found ? found->run : name);
    if (tag)
        *tag = g_steal_pointer(&found);
    return true;
}

/* Runs' names hardly ever meet, so one that is found behind a remote that is away is the one meant.
 * Of tags the first remote's counts, and nobody knows whether it has one. */
struct store *cli_resolve(struct cli_roots *roots, const char *name, char **run, struct tag **tag,
                          GError **error)
{
    g_autoptr(GError) first = NULL;
    int away = -1;

    for (unsigned i = 0; i < cli_roots_count(roots); i++) {
        g_autoptr(GError) why = NULL;
        struct store *root = cli_root(roots, i, &why);

        if (root && cli_resolve_in(root, roots->repo.id, name, run, tag, &why)) {
            if (away >= 0)
                say_which(roots, (unsigned)away, first);
            return root;
        }
        if (first && error_is(first, ENOENT))
            g_clear_error(&first);
        if (!first) {
            away = error_is(why, ENOENT) ? -1 : (int)i;
            first = g_steal_pointer(&why);
        }
        if (*name == ':' && !error_is(first, ENOENT))
            break;
    }
    g_propagate_error(error, g_steal_pointer(&first));
    return NULL;
}

struct store *cli_find_run(struct cli_roots *roots, const char *name, GError **error)
{
    g_autofree char *run = NULL;

    if (*name == ':') {
        error_set(error, EINVAL, "\"%s\" cannot be a run's name", name);
        return NULL;
    }
    return cli_resolve(roots, name, &run, NULL, error);
}

bool cli_answer(void)
{
    char answer[16];

    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

bool cli_confirm(const char *question, bool otherwise)
{
    if (!isatty(STDIN_FILENO))
        return otherwise;
    fprintf(stderr, "%s [y/N] ", question);
    return cli_answer();
}
