#include "runner/cli/cli.h"

#include "config/error.h"
#include "config/units.h"
#include "runner/cli/cli_transfer.h"
#include "runner/run/logs.h"

#include <stdio.h>
#include <string.h>

#define EPOCH_MAX_S G_GINT64_CONSTANT(253402300799) /* the end of the year 9999 */

static bool print(const char *data, size_t size, void *user, GError **error)
{
    fwrite(data, 1, size, stdout);
    fflush(stdout);
    return true;
}

/* "2h", or an ISO 8601 time, or seconds since 1970. */
static bool parse_since(const char *text, int64_t *since_ms, GError **error)
{
    g_autoptr(GTimeZone) zone = g_time_zone_new_local();
    g_autoptr(GDateTime) time = NULL;
    int64_t ago;
    guint64 epoch;

    if (duration_parse(text, &ago)) {
        *since_ms = run_now_ms() - ago;
        return true;
    }
    if (g_ascii_string_to_unsigned(text, 10, 0, EPOCH_MAX_S, &epoch, NULL)) {
        *since_ms = (int64_t)epoch * 1000;
        return true;
    }
    time = g_date_time_new_from_iso8601(text, zone);
    if (!time)
        return error_set(error, EINVAL,
                         "--since %s: write 30m, 2h, 1d, an ISO 8601 time or seconds", text);
    *since_ms = g_date_time_to_unix(time) * 1000;
    return true;
}

/* Nothing would come of another. */
static bool check_rank(struct store *root, const char *repo, const char *name, int rank,
                       GError **error)
{
    g_autoptr(Run) run = NULL;

    if (rank == 0)
        return true;
    run = run_store_load(root, repo, name, error);
    if (!run)
        return false;
    return (rank > 0 && (unsigned)rank < run->lifetime.nodes) ||
           error_set(error, EINVAL, "run %s has no rank %d: it is on %u node%s", name, rank,
                     MAX(run->lifetime.nodes, 1), run->lifetime.nodes > 1 ? "s" : "");
}

static bool show(struct store *root, const char *repo, const char *name, int64_t since_ms,
                 unsigned rank, bool attach, GError **error)
{
    struct progress *progress = NULL;
    struct log_reader reader;
    struct run *final = NULL;
    bool ok = log_reader_init(&reader, root, repo, name, rank, since_ms, error);

    if (!ok)
        return false;
    reader.watcher = (struct log_watcher){cli_show_progress, &progress};
    ok = attach ? log_reader_follow(&reader, print, NULL, NULL, &final, error)
                : log_reader_poll(&reader, print, NULL, NULL, error);
    log_reader_clear(&reader);
    progress_free(progress);
    run_free(final);
    return ok;
}

static int run(const struct command *command, int argc, char **argv)
{
    gboolean attach = FALSE;
    int rank = 0;
    g_autofree char *since = NULL;
    const GOptionEntry entries[] = {
        {"attach", 'a', 0, G_OPTION_ARG_NONE, &attach, "Go on until the run is finished", NULL},
        {"since", 's', 0, G_OPTION_ARG_STRING, &since, "Only what is newer: 30m, 2h, 1d, a time",
         "SINCE"},
        {"rank", 'r', 0, G_OPTION_ARG_INT, &rank, "Of a run on several nodes (0)", "RANK"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    struct cli_roots roots;
    GError *error = NULL;
    int64_t since_ms = 0;
    int status;
    bool ok;

    if (!cli_parse(command, entries, &argc, &argv, 1, 1, &status))
        return status;
    ok = cli_roots_open(&roots, &error) && (!since || parse_since(since, &since_ms, &error));
    if (ok) {
        struct store *root = cli_find_run(&roots, argv[1], &error);

        ok = root && check_rank(root, roots.repo.id, argv[1], rank, &error) &&
             show(root, roots.repo.id, argv[1], since_ms, (unsigned)rank, attach, &error);
    }
    cli_roots_clear(&roots);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_logs = {"logs", "RUN", "Prints a run's output.", run};
