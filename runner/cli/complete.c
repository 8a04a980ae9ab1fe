#include "runner/cli/complete.h"

#include "config/workflow.h"
#include "config/workflow_keys.h"
#include "runner/cli/arguments.h"
#include "runner/cli/cli.h"
#include "runner/secrets/secrets.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LIMIT_S = 1 };

struct completing {
    const char *word; /* what candidates begin with */
    char *before;     /* "--tag=": what stands before each; "" */
    bool files;       /* names of files belong here */
    unsigned count;   /* of candidates printed */
    GHashTable *seen; /* char*: a run may be here and on a remote */
    char **words;     /* of the command, the last being the one to complete */
    struct cli_roots roots;
    bool has_roots;
    const struct command *command;
};

static void offer(struct completing *c, const char *candidate, const char *description)
{
    if (!g_str_has_prefix(candidate, c->word) || strpbrk(candidate, "\n\t") ||
        !g_hash_table_add(c->seen, g_strdup(candidate)))
        return;
    printf("%s%s%s%s\n", c->before, candidate, description ? "\t" : "",
           description ? description : "");
    c->count++;
}

/* --- names that the store has --- */

struct naming {
    struct completing *completing;
    const char *prefix, *before; /* of the keys; of the names */
};

static bool offer_object(const struct store_object *object, void *user, GError **error)
{
    const struct naming *naming = user;
    const char *name = object->key + strlen(naming->prefix);
    g_autofree char *full = NULL;

    if (!g_str_has_suffix(name, ".json"))
        return true;
    full = g_strdup_printf("%s%.*s", naming->before, (int)(strlen(name) - strlen(".json")), name);
    offer(naming->completing, full, NULL);
    return true;
}

static void offer_objects(struct completing *c, struct store *root, const char *room,
                          const char *before)
{
    g_autofree char *prefix = g_strdup_printf("%s/%s/", room, c->roots.repo.id);
    struct naming naming = {c, prefix, before};

    store_list(root, prefix, true, offer_object, &naming, NULL);
}

static void offer_runs(struct completing *c, struct store *root)
{
    offer_objects(c, root, "runs", "");
}

static void offer_tags(struct completing *c, struct store *root)
{
    offer_objects(c, root, "tags", "");
}

static void offer_colon_tags(struct completing *c, struct store *root)
{
    offer_objects(c, root, "tags", ":");
}

static void offer_secrets(struct completing *c, struct store *root)
{
    g_autoptr(GPtrArray) names = secrets_list(root, c->roots.repo.id, NULL);

    for (guint i = 0; names && i < names->len; i++)
        offer(c, names->pdata[i], NULL);
}

/* --- names that are here --- */

static void offer_workflows(struct completing *c, struct store *root)
{
    g_autoptr(GPtrArray) workflows = workflows_load(c->roots.repo.top, NULL);

    for (guint i = 0; workflows && i < workflows->len; i++)
        offer(c, ((const struct workflow *)workflows->pdata[i])->name, NULL);
}

static void offer_providers(struct completing *c, struct store *root)
{
    for (const char *const *at = workflow_providers(); *at; at++)
        offer(c, *at, NULL);
}

static void offer_remotes(struct completing *c, struct store *root)
{
    for (guint i = 0; i < c->roots.remotes->len; i++)
        offer(c, ((const struct remote *)c->roots.remotes->pdata[i])->name, NULL);
}

static void offer_shells(struct completing *c, struct store *root)
{
    offer(c, "bash", NULL);
    offer(c, "fish", NULL);
    offer(c, "zsh", NULL);
}

static void offer_files(struct completing *c, struct store *root)
{
    c->files = true;
}

enum needs { NOTHING, REPO, EACH_ROOT };

/* The words of usages. Those of other kinds (NAME, URL, SIZE, …) are for the person to think of. */
static const struct kind {
    const char *word;
    void (*offer)(struct completing *c, struct store *root); /* ROOT: only if it needs each */
    enum needs needs;
} kinds[] = {
    {"RUN", offer_runs, EACH_ROOT},         {"TAG", offer_tags, EACH_ROOT},
    {":TAG", offer_colon_tags, EACH_ROOT},  {"SECRET", offer_secrets, EACH_ROOT},
    {"WORKFLOW", offer_workflows, REPO},    {"REMOTE", offer_remotes, REPO},
    {"PROVIDER", offer_providers, NOTHING}, {"SHELL", offer_shells, NOTHING},
    {"ARGUMENT", offer_files, NOTHING},     {"TARGET", offer_files, NOTHING},
    {"PATH", offer_files, NOTHING},         {"FILE", offer_files, NOTHING},
    {"DIR", offer_files, NOTHING},
};

static void offer_kind(struct completing *c, const struct kind *kind)
{
    if (kind->needs == NOTHING || (kind->needs == REPO && c->has_roots))
        kind->offer(c, NULL);
    for (unsigned i = 0; kind->needs == EACH_ROOT && c->has_roots && i < cli_roots_count(&c->roots);
         i++) {
        struct store *root;

        fflush(stdout); /* a remote that does not answer ends the program */
        root = cli_root(&c->roots, i, NULL);
        if (root)
            kind->offer(c, root);
    }
}

/* TEXT is "RUN|:TAG", "[PREFIX]", "PATH…", "add". */
static void offer_usage(struct completing *c, const char *text)
{
    g_autoptr(GString) plain = g_string_new(text);
    g_auto(GStrv) words = NULL;

    g_string_replace(plain, "…", "", 0);
    g_string_replace(plain, "[", "", 0);
    g_string_replace(plain, "]", "", 0);
    words = g_strsplit(plain->str, "|", -1);
    for (char **word = words; *word; word++) {
        if (g_ascii_islower(**word))
            offer(c, *word, NULL);
        for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
            if (strcmp(kinds[i].word, *word) == 0)
                offer_kind(c, &kinds[i]);
    }
}

/* --- options --- */

static const GOptionEntry *find_option(const GOptionEntry *entries, const char *word)
{
    bool is_long = g_str_has_prefix(word, "--");
    size_t length = strcspn(word, "=");

    for (; entries && entries->long_name; entries++)
        if (is_long ? strlen(entries->long_name) == length - 2 &&
                          strncmp(entries->long_name, word + 2, length - 2) == 0
                    : entries->short_name && entries->short_name == word[length - 1])
            return entries;
    return NULL;
}

static void offer_options(struct completing *c, const GOptionEntry *entries)
{
    for (; entries && entries->long_name; entries++) {
        g_autofree char *name = g_strconcat("--", entries->long_name, NULL);

        offer(c, name, entries->description);
    }
    offer(c, "--help", "Show all options");
}

/* --- what the word is --- */

/* Whether FORM has a place behind BEFORE: "add" is that word, everything upper case may be any, and
 * what ends with "…" may be repeated. */
static bool form_fits(char **form, GPtrArray *before)
{
    guint length = g_strv_length(form);

    for (guint i = 0; i < before->len && i < length; i++)
        if (g_ascii_islower(*form[i]) && strcmp(form[i], before->pdata[i]) != 0)
            return false;
    return before->len < length || strstr(form[length - 1], "…");
}

/* ARGUMENTS: "[add RUN TAG | delete TAG]", "cache WORKFLOW", "RUN|:TAG [PREFIX]". */
static void offer_argument(struct completing *c, const char *arguments, GPtrArray *before)
{
    bool several = strstr(arguments, " | ") != NULL;
    g_autofree char *inner =
        several ? g_strndup(arguments + 1, strlen(arguments) - 2) : g_strdup(arguments);
    g_auto(GStrv) forms = g_strsplit(inner, " | ", -1);

    for (char **at = forms; *at; at++) {
        g_auto(GStrv) form = g_strsplit(*at, " ", -1);
        guint length = g_strv_length(form);

        if (**at && form_fits(form, before))
            offer_usage(c, form[MIN(before->len, length - 1)]);
    }
}

/* Sorts all words before the last; true: the last is the value of the last option. */
static bool sort_words(const GOptionEntry *entries, char **words, GPtrArray *options,
                       GPtrArray *rest)
{
    static const GOptionEntry none[] = {{NULL, 0, 0, 0, NULL, NULL, NULL}};
    g_autoptr(GPtrArray) all = g_ptr_array_new(), others = g_ptr_array_new();
    g_autofree char **argv = NULL;
    int count = (int)g_strv_length(words);

    argv = g_new0(char *, (gsize)count + 1); /* [0] is not looked at */
    memcpy(argv + 1, words, (size_t)count * sizeof(*words));
    arguments_split(entries ? entries : none, count, argv, options, rest);
    argv[count] = (char *)"x"; /* an option of its own would be none's value */
    arguments_split(entries ? entries : none, count + 1, argv, all, others);
    return all->len > options->len;
}

static void complete_argument(const GOptionEntry *entries, void *user)
{
    struct completing *c = user;
    g_autoptr(GPtrArray) options = g_ptr_array_new(), rest = g_ptr_array_new();
    bool is_value = sort_words(entries, c->words, options, rest);
    const char *last = options->len ? options->pdata[options->len - 1] : NULL;
    const GOptionEntry *option = last ? find_option(entries, last) : NULL;
    char *equals = strchr(c->word, '=');

    if (is_value) {
        if (option)
            offer_usage(c, option->arg_description);
    } else if (*c->word == '-' && equals) {
        option = find_option(entries, c->word);
        g_free(c->before);
        c->before = g_strndup(c->word, (gsize)(equals + 1 - c->word));
        c->word = equals + 1;
        if (option && option->arg_description)
            offer_usage(c, option->arg_description);
    } else if (*c->word == '-') {
        offer_options(c, entries);
    } else {
        if (option && option->flags & G_OPTION_FLAG_OPTIONAL_ARG)
            offer_usage(c, option->arg_description);
        offer_argument(c, c->command->arguments, rest);
    }
}

static void complete_command(struct completing *c)
{
    for (const struct command *const *at = cli_commands; *at; at++)
        offer(c, (*at)->name, (*at)->summary);
    if (*c->word == '-') {
        offer(c, "--help", "Show all commands");
        offer(c, "--version", "Print the version");
    }
}

static void give_up(int number)
{
    _exit(0);
}

static void be_quiet(void)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    if (null >= 0)
        dup2(null, STDERR_FILENO);
    signal(SIGALRM, give_up);
    alarm(LIMIT_S);
}

int complete_words(char **words)
{
    guint count = g_strv_length(words);
    struct completing c = {.word = count ? words[count - 1] : "",
                           .seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};

    be_quiet();
    c.before = g_strdup("");
    if (count < 2) {
        complete_command(&c);
    } else if ((c.command = cli_command_find(words[0]))) {
        c.has_roots = cli_roots_open(&c.roots, NULL);
        c.words = words + 1;
        cli_ask_entries(c.command, complete_argument, &c);
        cli_roots_clear(&c.roots);
    }
    g_hash_table_unref(c.seen);
    g_free(c.before);
    return c.files && c.count == 0 ? COMPLETE_FILES : 0;
}
