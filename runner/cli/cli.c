#include "runner/cli/cli.h"

#include "config/error.h"
#include "storage/keys.h"
#include "storage/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool cli_parse(const struct command *command, const GOptionEntry *entries, int *argc, char ***argv,
               int least, int most, int *status)
{
    g_autoptr(GOptionContext) context = g_option_context_new(command->arguments);
    g_autoptr(GError) error = NULL;
    g_autofree char *name = g_strconcat("dstack ", command->name, NULL);

    g_set_prgname(name);
    g_option_context_set_summary(context, command->summary);
    if (entries)
        g_option_context_add_main_entries(context, entries, NULL);
    *status = 2;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        fprintf(stderr, "%s: %s; see %s --help\n", name, error->message, name);
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
    fprintf(stderr, "dstack: %s\n", error ? error->message : "failed");
    g_clear_error(&error);
    return 1;
}

bool cli_roots_open(struct cli_roots *roots, GError **error)
{
    memset(roots, 0, sizeof(*roots));
    if (!repo_find(".", &roots->repo, error) || !settings_load(&roots->settings, error))
        return false;
    roots->local = local_open(error);
    if (!roots->local)
        return false;
    if (roots->settings.remotes->len) {
        bool embedded;
        const struct remote *remote = settings_remote(&roots->settings, NULL, &embedded, error);

        roots->remote = remote ? remote_open(remote, error) : NULL;
        return roots->remote != NULL;
    } else {
        bool embedded;
        const struct remote *remote = settings_remote(&roots->settings, NULL, &embedded, NULL);
        const char *path = remote->storage + strlen("file://");

        if (g_file_test(path, G_FILE_TEST_IS_DIR))
            roots->remote = remote_open(remote, error);
        return roots->remote || !g_file_test(path, G_FILE_TEST_IS_DIR);
    }
}

void cli_roots_clear(struct cli_roots *roots)
{
    store_unref(roots->local);
    store_unref(roots->remote);
    settings_clear(&roots->settings);
    repo_clear(&roots->repo);
}

static bool has_run(struct store *root, const char *repo, const char *name, bool *has,
                    GError **error)
{
    g_autofree char *key = g_strdup_printf("runs/%s/%s.json", repo, name);
    struct store_object object = {0};
    g_autoptr(GError) why = NULL;

    *has = store_head(root, key, &object, &why);
    store_object_clear(&object);
    if (*has || error_is(why, ENOENT) || error_is(why, ENOTDIR))
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

struct store *cli_find_run(struct cli_roots *roots, const char *name, GError **error)
{
    struct store *candidates[] = {roots->local, roots->remote};

    if (!keys_name_is_valid(name)) {
        error_set(error, EINVAL, "\"%s\" cannot be a run's name", name);
        return NULL;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(candidates); i++) {
        bool has = false;

        if (candidates[i] && !has_run(candidates[i], roots->repo.id, name, &has, error))
            return NULL;
        if (has)
            return candidates[i];
    }
    error_set(error, ENOENT, "no run %s in repo %s; see dstack ps -a", name, roots->repo.id);
    return NULL;
}

struct store *cli_resolve(struct cli_roots *roots, const char *name, char **run, GError **error)
{
    struct store *candidates[] = {roots->local, roots->remote};

    if (*name != ':') {
        struct store *root = cli_find_run(roots, name, error);

        *run = root ? g_strdup(name) : NULL;
        return root;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(candidates); i++) {
        g_autoptr(GError) why = NULL;

        if (candidates[i] && tag_load(candidates[i], roots->repo.id, name + 1, run, &why))
            return candidates[i];
        if (why && !error_is(why, ENOENT)) {
            g_propagate_error(error, g_steal_pointer(&why));
            return NULL;
        }
    }
    error_set(error, ENOENT, "no tag %s in repo %s; see dstack tags", name + 1, roots->repo.id);
    return NULL;
}

bool cli_confirm(const char *question, bool otherwise)
{
    char answer[16];

    if (!isatty(STDIN_FILENO))
        return otherwise;
    fprintf(stderr, "%s [y/N] ", question);
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

void cli_table_init(struct cli_table *table, unsigned columns)
{
    table->columns = columns;
    table->cells = g_ptr_array_new_with_free_func(g_free);
}

/* What came from a store may hold control characters; a terminal is not to obey them. */
void cli_table_add(struct cli_table *table, const char *cell)
{
    char *text = g_utf8_make_valid(cell, -1);

    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127)
            *c = '?';
    g_ptr_array_add(table->cells, text);
}

void cli_table_print(struct cli_table *table)
{
    g_autofree glong *width = g_new0(glong, table->columns);

    for (guint i = 0; i < table->cells->len; i++) {
        glong here = g_utf8_strlen(table->cells->pdata[i], -1);

        width[i % table->columns] = MAX(width[i % table->columns], here);
    }
    for (guint i = 0; i < table->cells->len; i++) {
        unsigned column = i % table->columns;
        const char *cell = table->cells->pdata[i];
        bool last = column + 1 == table->columns;

        printf("%s", cell);
        if (last)
            putchar('\n');
        else
            printf("%*s", (int)(width[column] - g_utf8_strlen(cell, -1) + 2), "");
    }
    g_clear_pointer(&table->cells, g_ptr_array_unref);
}
