#include "runner/job/job_progress.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 4096, FIELDS = 5 };

static char *progress_key(const char *repo, const char *name)
{
    return g_strdup_printf("runs/%s/%s.progress", repo, name);
}

static void report(const struct transfer_progress *now, void *user)
{
    struct job_progress *progress = user;
    g_autofree char *text = NULL;

    if (g_get_monotonic_time() < progress->next_us)
        return;
    text = g_strdup_printf("%s\n%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d\n",
                           progress->label, now->files_done, now->files_total, now->bytes_done,
                           now->bytes_total, now->counting);
    store_write(progress->root, progress->key, text, strlen(text), NULL, NULL, NULL);
    progress->written = true;
    progress->next_us = g_get_monotonic_time() + G_USEC_PER_SEC;
}

void job_progress_begin(struct job_progress *progress, struct store *root, const struct run *run,
                        const char *label, struct transfer_options *options)
{
    *progress = (struct job_progress){.root = root,
                                      .key = progress_key(run->repo, run->name),
                                      .label = g_strdup(label),
                                      .next_us = g_get_monotonic_time() + G_USEC_PER_SEC};
    options->progress = report;
    options->progress_user = progress;
}

void job_progress_end(struct job_progress *progress)
{
    if (progress->written)
        store_delete(progress->root, progress->key, NULL);
    g_free(progress->key);
    g_free(progress->label);
}

bool job_progress_parse(const char *text, char **label, struct transfer_progress *now)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", 3);
    g_auto(GStrv) words = NULL;
    guint64 numbers[FIELDS];

    if (g_strv_length(lines) < 2 || !g_utf8_validate(lines[0], -1, NULL))
        return false;
    words = g_strsplit(lines[1], " ", FIELDS + 1);
    if (g_strv_length(words) != FIELDS)
        return false;
    for (int i = 0; i < FIELDS; i++)
        if (!g_ascii_string_to_unsigned(words[i], 10, 0, G_MAXINT64, &numbers[i], NULL))
            return false;
    *label = g_strdup(lines[0]);
    *now = (struct transfer_progress){numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
    return true;
}

bool job_progress_read(struct store *root, const char *repo, const char *name, char **label,
                       struct transfer_progress *now)
{
    g_autofree char *key = progress_key(repo, name), *text = NULL;
    size_t size;

    return store_read(root, key, TEXT_MAX, &text, &size, NULL, NULL) &&
           job_progress_parse(text, label, now);
}
