/* dstack secrets: kept on this machine and on every remote, so that a run has them wherever it is.
 *
 * safety: a value on the command line is overwritten in our own arguments as soon as it is read; a
 *         terminal does not show what is typed.
 */
#include "runner/cli/cli.h"

#include "config/error.h"
#include "runner/cli/arguments.h"
#include "runner/secrets/secret_box.h"
#include "runner/secrets/secrets.h"
#include "storage/remote.h"

#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { VALUE_MAX = 64 * 1024 };

typedef bool each_root(struct store *root, const char *repo, const char *name, const char *value,
                       GError **error);

/* Everything of standard input but its last line's end. */
static char *read_input(size_t *size)
{
    char *value = g_malloc0(VALUE_MAX + 3);

    *size = fread(value, 1, VALUE_MAX + 2, stdin);
    if (*size && value[*size - 1] == '\n')
        value[--*size] = '\0';
    return value;
}

/* Asks on the terminal, which shows nothing; NULL when interrupted. */
static char *ask_value(const char *name, size_t *size)
{
    struct termios before, hidden;
    char *value = g_malloc0(VALUE_MAX + 3);
    bool fine = tcgetattr(STDIN_FILENO, &before) == 0;

    hidden = before;
    hidden.c_lflag &= ~(tcflag_t)(ECHO | ISIG); /* Ctrl-C must not leave it hidden */
    fine = fine && tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden) == 0;
    fprintf(stderr, "Value of %s: ", name);
    fine = fine && fgets(value, VALUE_MAX + 2, stdin);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fprintf(stderr, "\n");
    value[strcspn(value, "\r\n")] = '\0';
    *size = strlen(value);
    if (fine && !strpbrk(value, "\003\032\034"))
        return value;
    secret_free(value);
    return NULL;
}

/* GIVEN is what stood on the command line. */
static char *take_value(const char *name, char *given, GError **error)
{
    size_t size = 0;
    char *value;

    if (given) {
        value = g_strdup(given);
        size = strlen(value);
        memset(given, 'x', size); /* ps shows it no more */
    } else {
        value = isatty(STDIN_FILENO) ? ask_value(name, &size) : read_input(&size);
    }
    if (!value)
        return error_set(error, ECANCELED, "interrupted: secret %s is as it was", name), NULL;
    if (secret_value_check(value, size, error))
        return value;
    secret_free(value);
    return NULL;
}

/* This machine's, and every remote's; the embedded one when there is no other. */
static bool for_each_root(struct cli_roots *roots, each_root *each, const char *name,
                          const char *value, GError **error)
{
    bool embedded;
    struct remote *first = settings_remote(&roots->settings, NULL, &embedded, error);
    g_autoptr(Store) alone = NULL;

    if (first && embedded && cli_roots_count(roots) == 1) {
        alone = remote_open(first, error);
        if (!alone || !each(alone, roots->repo.id, name, value, error))
            return false;
    }
    for (unsigned i = 0; i < cli_roots_count(roots); i++) {
        struct store *root = cli_root(roots, i, error);

        if (!root || !each(root, roots->repo.id, name, value, error))
            return false;
    }
    return true;
}

static bool put(struct store *root, const char *repo, const char *name, const char *value,
                GError **error)
{
    return secrets_put(root, repo, name, value, error);
}

static bool delete (struct store *root, const char *repo, const char *name, const char *value,
                    GError **error)
{
    return secrets_delete(root, repo, name, error);
}

/* Whether any root has NAME. */
static bool find(struct cli_roots *roots, const char *name, bool *found, GError **error)
{
    *found = false;
    for (unsigned i = 0; !*found && i < cli_roots_count(roots); i++) {
        struct store *root = cli_root(roots, i, error);

        if (!root || !secrets_has(root, roots->repo.id, name, found, error))
            return false;
    }
    return true;
}

static bool add(struct cli_roots *roots, const char *name, char *given, bool yes, GError **error)
{
    g_autofree char *question = g_strdup_printf("Secret %s is there already. Replace it?", name);
    bool found, fine;
    char *value;

    if (!secret_name_check(name, error) || !find(roots, name, &found, error))
        return false;
    if (found && !yes && !cli_confirm(question, false))
        return error_set(error, EEXIST, "secret %s is there already: dstack secrets update %s",
                         name, name);
    value = take_value(name, given, error);
    fine = value && for_each_root(roots, put, name, value, error);
    secret_free(value);
    return fine;
}

static bool update(struct cli_roots *roots, const char *name, char *given, GError **error)
{
    bool found;

    if (!find(roots, name, &found, error))
        return false;
    return found ? add(roots, name, given, true, error)
                 : error_set(error, ENOENT, "there is no secret %s: dstack secrets add %s", name,
                             name);
}

static bool remove_secret(struct cli_roots *roots, const char *name, bool yes, GError **error)
{
    g_autofree char *question = g_strdup_printf("Delete secret %s?", name);
    bool found;

    if (!find(roots, name, &found, error))
        return false;
    if (!found)
        return error_set(error, ENOENT, "there is no secret %s; see dstack secrets", name);
    if (!yes && !cli_confirm(question, true))
        return error_set(error, ECANCELED, "secret %s stays", name);
    return for_each_root(roots, delete, name, NULL, error);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_names(struct cli_roots *roots, struct store *root, void *user, GError **error)
{
    g_autoptr(GPtrArray) names = secrets_list(root, roots->repo.id, error);
    GPtrArray *all = user;

    for (guint i = 0; names && i < names->len; i++)
        if (!g_ptr_array_find_with_equal_func(all, names->pdata[i], g_str_equal, NULL))
            g_ptr_array_add(all, g_strdup(names->pdata[i]));
    return names != NULL;
}

/* The names alone: those of every root, once each. */
static bool list(struct cli_roots *roots)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func(g_free);
    bool complete = cli_each_root(roots, add_names, all);
    struct cli_table table;

    if (!complete && !all->len)
        return false;
    g_ptr_array_sort(all, compare);
    cli_table_init(&table, 1);
    cli_table_add(&table, "NAME");
    for (guint i = 0; i < all->len; i++)
        cli_table_add(&table, all->pdata[i]);
    cli_table_print(&table);
    return complete;
}

static bool act(struct cli_roots *roots, int argc, char **argv, bool yes, GError **error)
{
    if (argc == 1)
        return list(roots);
    if (strcmp(argv[1], "add") == 0)
        return add(roots, argv[2], argc > 3 ? argv[3] : NULL, yes, error);
    if (strcmp(argv[1], "update") == 0)
        return update(roots, argv[2], argc > 3 ? argv[3] : NULL, error);
    return remove_secret(roots, argv[2], yes, error);
}

static bool is_called_right(int argc, char **argv)
{
    static const char *const with_value[] = {"add", "update", NULL};

    if (argc == 1)
        return true;
    if (g_strv_contains(with_value, argv[1]))
        return argc == 3 || argc == 4;
    return strcmp(argv[1], "delete") == 0 && argc == 3;
}

static int run(const struct command *command, int argc, char **argv)
{
    gboolean yes = FALSE;
    const GOptionEntry entries[] = {
        {"yes", 'y', 0, G_OPTION_ARG_NONE, &yes, "Do not ask", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GPtrArray) own = g_ptr_array_new(), words = g_ptr_array_new();
    struct cli_roots roots = {0};
    GError *error = NULL;
    int status, own_argc;
    char **own_argv;
    bool ok;

    g_ptr_array_add(own, argv[0]);
    g_ptr_array_add(words, argv[0]);
    arguments_split(entries, argc, argv, own, words); /* a value may begin with a dash */
    own_argc = (int)own->len;
    own_argv = (char **)own->pdata;
    if (!cli_parse(command, entries, &own_argc, &own_argv, 0, 0, &status))
        return status;
    argc = (int)words->len;
    argv = (char **)words->pdata;
    if (!is_called_right(argc, argv)) {
        fprintf(stderr, "usage: dstack secrets %s\n", command->arguments);
        return 2;
    }
    ok = cli_roots_open(&roots, &error) && act(&roots, argc, argv, yes, &error);
    cli_roots_clear(&roots);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_secrets = {"secrets",
                                    "[add SECRET [VALUE] | update SECRET [VALUE] | delete SECRET]",
                                    "Lists, adds, changes and deletes a repo's secrets.", run};
