/* The command line: one const entry and one file for each subcommand.
 *
 * errors: a command returns its exit status. 0: done; 1: it failed, one line on stderr says why; 2:
 *         it was called wrongly. `dstack run` returns the job's own status.
 * shape:  data goes to stdout, everything else to stderr.
 */
#pragma once

#include "config/repo.h"
#include "config/settings.h"
#include "runner/run/run_store.h"
#include "storage/store.h"
#include "storage/tags.h"

struct command {
    const char *name;
    const char *arguments; /* "RUN|:TAG [PREFIX]" */
    const char *summary;   /* one sentence */
    int (*run)(const struct command *command, int argc, char **argv);
};

extern const struct command cmd_completion, cmd_config, cmd_cp, cmd_init, cmd_logs, cmd_ls,
    cmd_prune, cmd_ps, cmd_pull, cmd_push, cmd_rm, cmd_run, cmd_secrets, cmd_stop, cmd_tags;

extern const struct command *const cli_commands[]; /* all of them, as help shows them; then NULL */
const struct command *cli_command_find(const char *name);

/* Runs COMMAND, which does nothing but give its options to TAKE (NULL: it has none): those of a
 * command live in its own function, where their values are. */
typedef void cli_take_entries(const GOptionEntry *entries, void *user);
void cli_ask_entries(const struct command *command, cli_take_entries *take, void *user);

/* The commands' side of it: true when ENTRIES were asked for, and the command is to return. */
bool cli_give_entries(const GOptionEntry *entries);

/* Parses options; afterwards ARGV[1…] are what is left, between LEAST and MOST of them (MOST -1: no
 * limit). Prints what is wrong; --help prints help and exits 0. False: return *STATUS. */
bool cli_parse(const struct command *command, const GOptionEntry *entries, int *argc, char ***argv,
               int least, int most, int *status);

/* TEXT (names, a server's words) as what a terminal does not obey: UTF-8 without control
 * characters. The caller's. And how many columns it takes there. */
char *cli_printable(const char *text);
unsigned cli_width(const char *printable);

/* Whether what goes to FD may be coloured: a terminal that can, and no NO_COLOR (no-color.org). */
bool cli_is_coloured(int fd);

/* "WHO: TEXT" on stderr, as one line whatever TEXT holds. */
void cli_say(const char *who, const char *text);

/* "dstack: MESSAGE" on stderr; frees ERROR. NULL: it was said already. Returns 1. */
int cli_fail(GError *error);

/* The repo of the current directory, and the roots where runs are: this machine's, then the
 * remotes', the default one first. With no remote configured, the embedded one if it was used. */
struct cli_roots {
    struct repo repo;
    struct settings settings;
    struct store *local;
    GPtrArray *remotes; /* struct remote*, borrowed from the settings */
    GPtrArray *opened;  /* struct store*, as many; NULL: not yet */
};

bool cli_roots_open(struct cli_roots *roots, GError **error);
void cli_roots_clear(struct cli_roots *roots);

/* How many there are, and the I-th, borrowed: 0 is this machine's. A remote is opened when it is
 * first wanted, so that what is done here works without it. */
unsigned cli_roots_count(const struct cli_roots *roots);
struct store *cli_root(struct cli_roots *roots, unsigned i, GError **error);

/* Gives every root to EACH. One that is away, or for which EACH fails, is said on stderr, and the
 * others have their turn all the same. False: there was such a one. */
typedef bool cli_each(struct cli_roots *roots, struct store *root, void *user, GError **error);
bool cli_each_root(struct cli_roots *roots, cli_each *each, void *user);

/* The root that has run NAME; borrowed. ENOENT, with what to do, when none has it. */
struct store *cli_find_run(struct cli_roots *roots, const char *name, GError **error);

/* The run that NAME (a run, or ":TAG") means, and its root. RUN is the caller's, and so is TAG (may
 * be NULL): the tag, when it was one. The run itself may be gone then. */
struct store *cli_resolve(struct cli_roots *roots, const char *name, char **run, struct tag **tag,
                          GError **error);

/* The same in one root. */
bool cli_resolve_in(struct store *root, const char *repo, const char *name, char **run,
                    struct tag **tag, GError **error);

/* Asks a yes-or-no question on a terminal; without one the answer is OTHERWISE. */
bool cli_confirm(const char *question, bool otherwise);
bool cli_answer(void); /* reads the answer alone */

/* Columns of text, each as wide as its widest cell: cells are added row by row. */
struct cli_table {
    unsigned columns;
    GPtrArray *cells;   /* char* */
    GPtrArray *colours; /* const char*, of each cell; NULL: none */
};
void cli_table_init(struct cli_table *table, unsigned columns);
void cli_table_add(struct cli_table *table, const char *cell);
void cli_table_add_status(struct cli_table *table, enum run_status status);
void cli_table_print(struct cli_table *table); /* and clears it */
