/* Many threads that write one log while its store comes and goes. Under ThreadSanitizer it finds
 * races; without it, that every line is there once and each thread's are in order. */
#include "runner/run/logs.h"
#include "tests/support/faulty_store.h"
#include "tests/support/memory_store.h"

#include <glib/gstdio.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, LINES = 4000, PADDING = 1000 };

struct talker {
    struct log_writer *writer;
    unsigned number;
    pthread_t thread;
};

static void *talk(void *user)
{
    struct talker *talker = user;

    for (unsigned i = 0; i < LINES; i++) {
        g_autofree char *line = g_strdup_printf("%u %u %*s\n", talker->number, i, PADDING, ".");

        log_writer_has_room(talker->writer);
        log_writer_add(talker->writer, line, strlen(line));
    }
    return NULL;
}

static bool collect(const char *data, size_t size, void *user, GError **error)
{
    g_string_append_len(user, data, (gssize)size);
    return true;
}

static bool is_whole(struct store *root)
{
    g_autoptr(GString) all = g_string_new(NULL);
    unsigned next[THREADS] = {0}, number, i, lines = 0;
    g_auto(GStrv) split = NULL;
    struct log_reader reader;
    bool read = log_reader_init(&reader, root, "demo", "a-1", 0, 0, NULL) &&
                log_reader_poll(&reader, collect, all, NULL, NULL);

    log_reader_clear(&reader);
    split = g_strsplit(all->str, "\n", -1);
    for (char **line = split; read && **line; line++, lines++)
        if (sscanf(*line, "%u %u", &number, &i) != 2 || number >= THREADS || i != next[number]++)
            return false;
    return lines == THREADS * LINES;
}

int main(void)
{
    g_autoptr(Store) memory = memory_store_new();
    g_autoptr(Store) root = faulty_store_new(memory);
    char dir[] = "/var/tmp/dstack-race-XXXXXX";
    const struct log_options options = {.dir = mkdtemp(dir)};
    struct talker talkers[THREADS];
    g_autoptr(GError) error = NULL;
    struct log_writer *writer;
    bool fine;

    faulty_store_fail(root, STORE_PUT, 3, 2, EHOSTUNREACH);
    writer = options.dir ? log_writer_open(root, "demo", "a-1", &options, &error) : NULL;
    if (!writer)
        return 1;
    for (unsigned i = 0; i < THREADS; i++) {
        talkers[i] = (struct talker){.writer = writer, .number = i};
        if (pthread_create(&talkers[i].thread, NULL, talk, &talkers[i]) != 0)
            return 1;
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(talkers[i].thread, NULL);
    fine = log_writer_close(writer, 30000, NULL, &error) && is_whole(memory);
    if (!fine)
        fprintf(stderr, "%s\n", error ? error->message : "lines are missing");
    return g_remove(dir) == 0 && fine ? 0 : 1;
}
